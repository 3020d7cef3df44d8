"""What an operator does about dead letters: look at them, send them to their topic again, or settle them as dropped.

A dead letter stays where it is until its topic's retention ends. What became of it is a record of dead-letters.settled.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from schemas.envelope import HEADER_EVENT_TYPE, HEADER_SEQ
from schemas.topics import DEAD_LETTERS_SETTLED, TOPICS
from stream_apps.dead_letters import SUFFIX
from stream_apps.records import Record

REASON = "deadLetterReason"
ORIGIN_TOPIC = "deadLetterTopic"
ORIGIN_PARTITION = "deadLetterPartition"
ORIGIN_OFFSET = "deadLetterOffset"
OURS = frozenset({REASON, ORIGIN_TOPIC, ORIGIN_PARTITION, ORIGIN_OFFSET})

REDRIVEN_FROM = "redrivenFrom"
"""Header of a record that was sent to its topic again: the dead letter that it was."""

READ_MS = 1000
MOST_EMPTY_READS = 15


class Outcome(StrEnum):
    """How a dead letter was settled."""

    REDRIVEN = "redriven"
    DROPPED = "dropped"


class UnknownLetter(Exception):
    """There is no such dead letter."""


class NoOrigin(Exception):
    """The dead letter does not say where it came from, so that it cannot be sent there again."""


class ReadingStalled(Exception):
    """Kafka did not bring what it has, for too long."""


@dataclass(frozen=True, slots=True)
class Address:
    """A dead letter's place. Written `<topic>:<partition>:<offset>`."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}:{self.partition}:{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The inverse of str(). The topic may lack its `.dead-letter`. Raises ValueError."""
        topic, partition, offset = text.rsplit(":", 2)
        return cls(topic if topic.endswith(SUFFIX) else topic + SUFFIX, int(partition), int(offset))


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter: the record as it was, with the headers that tell what happened; and whether it is settled."""

    address: Address
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    outcome: Outcome | None = None

    def text(self, header: str) -> str:
        """A header's text; empty if there is none."""
        return (dict(self.headers).get(header) or b"").decode("utf-8", "replace")

    @property
    def origin(self) -> str:
        """Where the record was."""
        return f"{self.text(ORIGIN_TOPIC)}:{self.text(ORIGIN_PARTITION)}:{self.text(ORIGIN_OFFSET)}"

    def describe(self) -> dict[str, Any]:
        """What is told of it in a list: nothing of its contents."""
        return {
            "address": str(self.address),
            "timestamp_ms": self.timestamp,
            "origin": self.origin,
            "reason": self.text(REASON),
            "key": None if self.key is None else self.key.decode("utf-8", "replace"),
            "event_type": self.text(HEADER_EVENT_TYPE),
            "seq": self.text(HEADER_SEQ),
            "bytes": len(self.value or b""),
            "outcome": self.outcome,
        }


def original_headers(letter: Letter) -> list[tuple[str, bytes | None]]:
    """The headers that the record had, and one that says that it comes again."""
    kept = [(name, value) for name, value in letter.headers if name not in OURS and name != REDRIVEN_FROM]
    return [*kept, (REDRIVEN_FROM, str(letter.address).encode())]


def dead_letter_topics() -> list[str]:
    """The dead-letter topics that are declared."""
    return [topic.name for topic in TOPICS if topic.name.endswith(SUFFIX)]


@dataclass
class Desk:
    """Raises aiokafka.errors.KafkaError."""

    bootstrap: str
    _producer: Any = field(default=None, init=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._producer is not None:
            await self._producer.stop()

    async def read(self, topics: Sequence[str]) -> list[Letter]:
        """All dead letters of these topics, in their order, with what became of them."""
        settled = {
            (record.key or b"").decode(): Outcome(json.loads(record.value or b"{}")["outcome"])
            for record in await self._read_all([DEAD_LETTERS_SETTLED.name])
        }
        letters: list[Letter] = []
        for record in await self._read_all(topics):
            address = Address(record.topic, record.partition, record.offset)
            letters.append(
                Letter(
                    address,
                    record.timestamp,
                    record.key,
                    record.value,
                    list(record.headers),
                    settled.get(str(address)),
                )
            )
        return letters

    async def find(self, addresses: Sequence[Address]) -> list[Letter]:
        """These dead letters, in this order. Raises UnknownLetter."""
        letters = {letter.address: letter for letter in await self.read(sorted({one.topic for one in addresses}))}
        for address in addresses:
            if address not in letters:
                raise UnknownLetter(f"There is no dead letter {address} (any more).")
        return [letters[address] for address in addresses]

    async def redrive(self, letter: Letter) -> str:
        """Sends the record to its topic and partition again, as it was, and settles the dead letter. Says where it is
        now. If it ends in between, the record may be sent again: whoever reads it drops what it knows."""
        if not letter.text(ORIGIN_TOPIC) or not letter.text(ORIGIN_PARTITION).isdigit():
            raise NoOrigin(f"The dead letter {letter.address} does not say where it came from.")
        producer = await self._started()
        sent = await producer.send_and_wait(
            letter.text(ORIGIN_TOPIC),
            value=letter.value,
            key=letter.key,
            partition=int(letter.text(ORIGIN_PARTITION)),
            headers=original_headers(letter),
        )
        await self._settle(letter, Outcome.REDRIVEN)
        return f"{sent.topic}:{sent.partition}:{sent.offset}"

    async def drop(self, letter: Letter) -> None:
        """Settles the dead letter: it is listed no longer."""
        await self._settle(letter, Outcome.DROPPED)

    async def _settle(self, letter: Letter, outcome: Outcome) -> None:
        producer = await self._started()
        value = json.dumps({"outcome": outcome, "reason": letter.text(REASON), "origin": letter.origin}).encode()
        await producer.send_and_wait(DEAD_LETTERS_SETTLED.name, value=value, key=str(letter.address).encode())

    async def _read_all(self, topics: Sequence[str]) -> list[Record]:
        """All records that the topics hold now; each partition's in order."""
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.bootstrap,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=100,
        )
        try:
            await consumer.start()
            partitions = [
                TopicPartition(topic.name, number)
                for topic in TOPICS
                if topic.name in topics
                for number in range(topic.partitions)
            ]
            ends = await consumer.end_offsets(partitions)
            beginnings = await consumer.beginning_offsets(partitions)
            positions = dict(beginnings)
            consumer.assign(partitions)
            for partition, offset in beginnings.items():
                consumer.seek(partition, offset)
            records: list[Record] = []
            empty = 0
            while any(positions[partition] < end for partition, end in ends.items()):
                taken = await consumer.getmany(timeout_ms=READ_MS)
                empty = 0 if taken else empty + 1
                if empty > MOST_EMPTY_READS:
                    raise ReadingStalled(f"Kafka did not bring the records of {', '.join(topics)}.")
                for partition, found in taken.items():
                    positions[partition] = found[-1].offset + 1
                    records += [record for record in found if record.offset < ends[partition]]
            return records
        finally:
            await consumer.stop()

    async def _started(self) -> Any:
        if self._producer is None:
            producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap, acks="all", enable_idempotence=True)
            try:
                await producer.start()
            except BaseException:
                await producer.stop()
                raise
            self._producer = producer
        return self._producer
