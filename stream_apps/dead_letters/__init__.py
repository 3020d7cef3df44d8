"""Dead letters: records that can never be applied, set aside with the reason, by a send that is awaited."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaTimeoutError

from schemas.topics import TOPICS
from stream_apps.dead_letter_limit import DeadLetterLimit, name_of
from stream_apps.producer import Outgoing, Producer
from stream_apps.records import Record

logger = logging.getLogger(__name__)

SUFFIX = ".dead-letter"
RECALL_SECONDS = 30.0
ORIGIN = ("Topic", "Partition", "Offset")

Origin = tuple[str, int, int]


class DeadLetters:
    """Sends records to their topic's dead-letter topic. The producer is made when it is first needed; then it is also
    read what was set aside lately, so that an app that was stopped by the limit and started again goes no further, and
    one that ended before it could acknowledge sets nothing aside twice."""

    def __init__(self, bootstrap: str, *, limit: int) -> None:
        self._bootstrap = bootstrap
        self._limit = DeadLetterLimit(limit)
        self._recalled: set[str] = set()
        self._known: set[Origin] = set()
        self._producer = Producer(bootstrap)

    async def send(self, record: Record, reason: str) -> None:
        """Returns when Kafka has the record, as it was, with headers that tell reason and origin. Raises
        TooManyDeadLetters, aiokafka.errors.KafkaError."""
        topic = record.topic + SUFFIX
        if topic not in self._recalled:
            await self._recall(topic)
        if (record.topic, record.partition, record.offset) in self._known:
            return
        name = name_of(record.key, record.topic, record.partition, record.offset)
        self._limit.check(
            name,
            f"{record.topic} partition {record.partition} offset {record.offset}: {reason}. Look at {topic}, then raise"
            " CHAT4ALL_DEAD_LETTER_LIMIT or mend what writes such records.",
        )
        logger.error(
            "dead letter: %s partition %d offset %d: %s", record.topic, record.partition, record.offset, reason
        )
        await self._producer.send([Outgoing(topic, record.key, record.value, _headers(record, reason))])
        self._limit.note(name)

    async def _recall(self, topic: str) -> None:
        """Counts what was set aside within the limit's window, by whomever."""
        since = int((time.time() - self._limit.window_seconds) * 1000)
        partitions = [TopicPartition(topic, number) for number in range(_partitions_of(topic))]
        consumer = AIOKafkaConsumer(bootstrap_servers=self._bootstrap, enable_auto_commit=False)
        try:
            async with asyncio.timeout(RECALL_SECONDS):
                await consumer.start()
                starts = await consumer.offsets_for_times(dict.fromkeys(partitions, since))
                ends = await consumer.end_offsets(partitions)
                consumer.assign([partition for partition in partitions if starts[partition] is not None])
                for partition in consumer.assignment():
                    consumer.seek(partition, starts[partition].offset)
                while any([await consumer.position(one) < ends[one] for one in consumer.assignment()]):
                    for letters in (await consumer.getmany(timeout_ms=1000)).values():
                        for letter in letters:
                            origin = _origin_of(letter)
                            self._known.add(origin)
                            self._limit.note(name_of(letter.key, *origin), letter.timestamp / 1000)
        except TimeoutError as error:
            raise KafkaTimeoutError(f"{topic} could not be read within {RECALL_SECONDS:g} s") from error
        finally:
            await consumer.stop()
        self._recalled.add(topic)

    async def open(self) -> None:
        """Nothing: dead letters are rare."""

    async def close(self) -> None:
        """Closes the producer."""
        await self._producer.close()


def _partitions_of(topic: str) -> int:
    """As schemas/topics.py declares it."""
    return next(declared.partitions for declared in TOPICS if declared.name == topic)


def _headers(record: Record, reason: str) -> list[tuple[str, bytes | None]]:
    return [
        *record.headers,
        ("deadLetterReason", reason.encode()),
        ("deadLetterTopic", record.topic.encode()),
        ("deadLetterPartition", str(record.partition).encode()),
        ("deadLetterOffset", str(record.offset).encode()),
    ]


def _origin_of(letter: Any) -> Origin:
    """Of the record that became this dead letter."""
    headers = dict(letter.headers)
    topic, partition, offset = ((headers.get(f"deadLetter{part}") or b"0").decode() for part in ORIGIN)
    return topic, int(partition), int(offset)
