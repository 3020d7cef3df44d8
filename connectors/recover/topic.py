"""Reads which conversations and seqs the records of `conversation.events` tell. Joins no group and commits nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError

from connectors.recover.model import Heard
from schemas.envelope import HEADER_SEQ
from schemas.ids import MalformedKey, conversation_id_of_key
from schemas.topics import CONVERSATION_EVENTS

CLOCK_MARGIN = timedelta(minutes=5)
"""How far the clocks of PostgreSQL and Kafka may be apart: so much earlier reading begins."""
STALL_SECONDS = 30.0

Offsets = Mapping[int, int]
"""Partition -> offset."""


class TopicUnreadable(Exception):
    """Kafka does not answer, or not with this topic; the message is a sentence."""


@dataclass(frozen=True, slots=True)
class Told:
    """What was read. `since` is the time from which on Kafka holds every record; None when it has never removed one.
    `ends` is where reading stopped: each partition's next offset. `unreadable` records told no conversation and seq."""

    heard: Heard
    since: datetime | None
    ends: Offsets
    records: int
    unreadable: int


class Topic:
    """The records of `conversation.events`. All methods raise TopicUnreadable."""

    def __init__(self, consumer: AIOKafkaConsumer, partitions: list[TopicPartition]) -> None:
        self._consumer = consumer
        self._partitions = partitions

    async def read(self, since: datetime | None, on_progress: Callable[[int, int], None]) -> Told:
        """Every record from `since` on (None: from the first that is kept) up to now. `on_progress` is told how many
        records were read, of how many."""
        with _sentences():
            begins = await self._consumer.beginning_offsets(self._partitions)
            ends = await self._consumer.end_offsets(self._partitions)
            starts = dict(begins)
            if since is not None:
                at = int((since - CLOCK_MARGIN).timestamp() * 1000)
                found = await self._consumer.offsets_for_times(dict.fromkeys(self._partitions, at))
                starts = {tp: found[tp].offset if found[tp] else ends[tp] for tp in self._partitions}
            for tp in self._partitions:
                self._consumer.seek(tp, starts[tp])
            total = sum(ends[tp] - starts[tp] for tp in self._partitions)
            heard = Heard()
            oldest: dict[TopicPartition, int] = {}
            records = unreadable = 0
            while any([await self._consumer.position(tp) < ends[tp] for tp in self._partitions]):
                for tp, batch in (await self._fetch()).items():
                    oldest.setdefault(tp, batch[0].timestamp)
                    unreadable += _take(heard, batch)
                    records += len(batch)
                on_progress(min(records, total), total)
            kept_since = [oldest[tp] for tp in self._partitions if begins[tp] > 0 and tp in oldest]
            cut = [tp for tp in self._partitions if begins[tp] > 0]
        return Told(
            heard=heard,
            since=since or _since(kept_since, has_lost_all=len(kept_since) < len(cut)),
            ends={tp.partition: offset for tp, offset in ends.items()},
            records=records,
            unreadable=unreadable,
        )

    async def follow(self, starts: Offsets) -> AsyncIterator[list[tuple[str, int]]]:
        """Conversation and seq of every record from these offsets on, as they come, without an end. Raises
        TopicUnreadable also when nothing has come for STALL_SECONDS."""
        with _sentences():
            for tp in self._partitions:
                self._consumer.seek(tp, starts[tp.partition])
            while True:
                pairs = [_pair(record) for batch in (await self._fetch()).values() for record in batch]
                yield [pair for pair in pairs if pair is not None]

    async def _fetch(self) -> Mapping[TopicPartition, list[ConsumerRecord]]:
        """At least one record."""
        deadline = asyncio.get_running_loop().time() + STALL_SECONDS
        while True:
            found: Mapping[TopicPartition, list[ConsumerRecord]] = await self._consumer.getmany(timeout_ms=1000)
            if found:
                return found
            if asyncio.get_running_loop().time() > deadline:
                raise TopicUnreadable(f"Kafka gave no record of {CONVERSATION_EVENTS.name} for {STALL_SECONDS:g} s.")


@asynccontextmanager
async def open_topic(bootstrap: str) -> AsyncIterator[Topic]:
    """The topic, read by this process alone. Raises TopicUnreadable."""
    consumer = AIOKafkaConsumer(
        CONVERSATION_EVENTS.name,
        bootstrap_servers=bootstrap,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=4 * 1024 * 1024,
    )
    with _sentences(bootstrap):
        try:
            await consumer.start()
        except UnknownTopicOrPartitionError as error:
            await consumer.stop()
            raise TopicUnreadable(
                f"Kafka has no topic {CONVERSATION_EVENTS.name}: run python -m stream_apps.topics."
            ) from error
        except BaseException:
            await consumer.stop()
            raise
    try:
        yield Topic(consumer, sorted(consumer.assignment()))
    finally:
        await consumer.stop()


class _sentences:  # noqa: N801 - used like a function
    """Makes a sentence of what goes wrong with Kafka."""

    def __init__(self, bootstrap: str | None = None) -> None:
        self._where = f" at {bootstrap}" if bootstrap else ""

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, KafkaError | OSError):
            raise TopicUnreadable(
                f"Kafka{self._where} cannot be read: {str(error) or type(error).__name__}."
            ) from error


def _take(heard: Heard, batch: list[ConsumerRecord]) -> int:
    """Adds the records; how many of them told nothing."""
    unreadable = 0
    for record in batch:
        pair = _pair(record)
        if pair is None:
            unreadable += 1
        else:
            heard.add(*pair)
    return unreadable


def _pair(record: ConsumerRecord) -> tuple[str, int] | None:
    try:
        return conversation_id_of_key(record.key or b""), int(dict(record.headers)[HEADER_SEQ])
    except (MalformedKey, KeyError, TypeError, ValueError):
        return None


def _since(kept_since: list[int], *, has_lost_all: bool) -> datetime | None:
    """The time from which on every partition holds all its records, clocks' difference allowed for."""
    since = [datetime.fromtimestamp(stamp / 1000, UTC) for stamp in kept_since]
    if has_lost_all:  # a partition whose records have all been removed
        since.append(datetime.now(UTC) - timedelta(milliseconds=CONVERSATION_EVENTS.retention_ms))
    return max(since) + CLOCK_MARGIN if since else None
