"""Reads conversation.events for audit: without a consumer group, from a time or from the beginning, in offset order."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from schemas.envelope import MalformedEnvelope, read_envelope
from schemas.topics import CONVERSATION_EVENTS
from stream_apps.audit.checker import Copied
from stream_apps.log_reader import LogEntry
from stream_apps.records import Record

TAKE_RECORDS = 2000
FETCH_WAIT_MS = 2000
FETCH_MIN_BYTES = 64 * 1024
"""The broker answers rarely and with much: nobody waits for audit."""


class TopicReader:
    """Raises aiokafka.errors.KafkaError."""

    def __init__(self, bootstrap: str, *, is_patient: bool = True) -> None:
        self._options: dict[str, Any] = {
            "bootstrap_servers": bootstrap,
            "enable_auto_commit": False,
            "auto_offset_reset": "earliest",
            "max_partition_fetch_bytes": 256 * 1024,
            "fetch_max_wait_ms": FETCH_WAIT_MS if is_patient else 100,
            "fetch_min_bytes": FETCH_MIN_BYTES if is_patient else 1,
        }
        self._consumer: Any = None
        self._partitions: Sequence[TopicPartition] = [
            TopicPartition(CONVERSATION_EVENTS.name, number) for number in range(CONVERSATION_EVENTS.partitions)
        ]
        self._positions: dict[Any, int] = {}
        self._ends: dict[Any, int] = {}
        self.is_whole = False
        """Whether what lacks was never there: the topic still has its first record, or is read from a time on."""
        self.unreadable = 0
        """Records without a usable key or headers. They are dead letters of the stream apps."""

    async def open(self, *, since: datetime | None) -> None:
        """Stands at the first records after a time, or at the topic's beginning; notes where it ends now."""
        consumer = AIOKafkaConsumer(**self._options)
        try:
            await consumer.start()
            consumer.assign(self._partitions)
            beginnings = await consumer.beginning_offsets(self._partitions)
            self._ends = dict(await consumer.end_offsets(self._partitions))
            self._positions = dict(beginnings)
            self.is_whole = since is not None or not any(beginnings.values())
            if since is not None:
                when = dict.fromkeys(self._partitions, round(since.timestamp() * 1000))
                for partition, found in (await consumer.offsets_for_times(when)).items():
                    self._positions[partition] = self._ends[partition] if found is None else found.offset
            for partition, offset in self._positions.items():
                consumer.seek(partition, offset)
        except BaseException:
            await consumer.stop()
            raise
        self._consumer = consumer

    @property
    def is_open(self) -> bool:
        """Whether it was opened."""
        return self._consumer is not None

    async def close(self) -> None:
        """Closes the consumer."""
        if self._consumer is not None:
            with contextlib.suppress(Exception):
                await self._consumer.stop()
            self._consumer = None

    def is_at_noted_end(self) -> bool:
        """Whether all has been taken that there was when it was opened."""
        return all(self._positions[partition] >= end for partition, end in self._ends.items())

    async def take(self, *, timeout_ms: int = 0) -> tuple[list[Copied], int]:
        """The next records, each partition's in the order of offsets, and how many were taken (with the unreadable)."""
        taken = await self._consumer.getmany(timeout_ms=timeout_ms, max_records=TAKE_RECORDS)
        copied: list[Copied] = []
        count = 0
        for partition, records in taken.items():
            self._positions[partition] = records[-1].offset + 1
            count += len(records)
            for record in records:
                try:
                    copied.append(_copied(record))
                except MalformedEnvelope:
                    self.unreadable += 1
        return copied, count


def _copied(record: Record) -> Copied:
    envelope = read_envelope(record.key, record.headers, record.value)
    entry = LogEntry(envelope.seq, envelope.event_id, envelope.event_type, envelope.payload)
    return Copied(envelope.conversation_id, entry, record.partition, record.offset)
