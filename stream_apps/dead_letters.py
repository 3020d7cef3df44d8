"""Dead letters: records that can never be applied, set aside with the reason, by a send that is awaited."""

from __future__ import annotations

import logging
from typing import Any

from aiokafka import AIOKafkaProducer

from stream_apps.records import Record

logger = logging.getLogger(__name__)

SUFFIX = ".dead-letter"


class TooManyDeadLetters(Exception):
    """More records than the limit could not be applied: something is wrong with the stream, not with a record."""


class DeadLetters:
    """Sends records to their topic's dead-letter topic. The producer is made when it is first needed."""

    def __init__(self, bootstrap: str, *, limit: int) -> None:
        self._bootstrap = bootstrap
        self._limit = limit
        self._sent = 0
        self._producer: AIOKafkaProducer | None = None

    async def send(self, record: Record, reason: str) -> None:
        """Returns when Kafka has the record, as it was, with headers that tell reason and origin. Raises
        TooManyDeadLetters, aiokafka.errors.KafkaError."""
        if self._sent >= self._limit:
            raise TooManyDeadLetters(
                f"{self._sent} records were set aside as dead letters since this app started, and another one is to be"
                f" (partition {record.partition}, offset {record.offset}: {reason}). Look at {record.topic}{SUFFIX}"
                " before you start it again."
            )
        logger.error(
            "dead letter: %s partition %d offset %d: %s", record.topic, record.partition, record.offset, reason
        )
        producer = await self._started()
        await producer.send_and_wait(
            record.topic + SUFFIX, value=record.value, key=record.key, headers=_headers(record, reason)
        )
        self._sent += 1

    async def open(self) -> None:
        """Nothing: dead letters are rare."""

    async def close(self) -> None:
        """Closes the producer."""
        if self._producer is not None:
            await self._producer.stop()

    async def _started(self) -> Any:
        if self._producer is None:
            producer = AIOKafkaProducer(bootstrap_servers=self._bootstrap, acks="all", enable_idempotence=True)
            try:
                await producer.start()
            except BaseException:
                await producer.stop()
                raise
            self._producer = producer
        return self._producer


def _headers(record: Record, reason: str) -> list[tuple[str, bytes | None]]:
    return [
        *record.headers,
        ("deadLetterReason", reason.encode()),
        ("deadLetterTopic", record.topic.encode()),
        ("deadLetterPartition", str(record.partition).encode()),
        ("deadLetterOffset", str(record.offset).encode()),
    ]
