"""What the canary decides without I/O: its conversations, and which of its messages are lost."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count, pairwise
from typing import Any

from schemas.ids import conversation_key

_NAMESPACE = uuid.UUID("9f2d5a6b-7c8d-5e0f-8a3c-1e7b1a7c3e9d")
_HOPS = ("accepted", "committed", "appended", "applied")
REMEMBERED_LOST = 1000


def partition_of(conversation_id: str, partitions: int) -> int:
    """The partition that a conversation's records are in: Kafka's default partitioner (murmur2 of the key, made
    positive), as Connect's producer uses it."""
    return (murmur2(conversation_key(conversation_id).encode()) & 0x7FFFFFFF) % partitions


def murmur2(data: bytes) -> int:
    """Kafka's hash of a key (org.apache.kafka.common.utils.Utils.murmur2), as an unsigned number of 32 bits."""
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    h = (0x9747B28C ^ len(data)) & mask
    whole = len(data) & ~3
    for at in range(0, whole, 4):
        k = int.from_bytes(data[at : at + 4], "little") * m & mask
        h = (h * m & mask) ^ ((k ^ (k >> 24)) * m & mask)
    if rest := data[whole:]:
        h = (h ^ int.from_bytes(rest, "little")) * m & mask
    h = (h ^ (h >> 13)) * m & mask
    return h ^ (h >> 15)


def choose_conversations(user_id: str, partitions: int) -> list[str]:
    """One conversation id per partition, in the partitions' order; always the same ones for the same user."""
    found: dict[int, str] = {}
    for number in count():
        conversation_id = str(uuid.uuid5(_NAMESPACE, f"{user_id}:{number}"))
        found.setdefault(partition_of(conversation_id, partitions), conversation_id)
        if len(found) == partitions:
            return [found[partition] for partition in range(partitions)]
    raise AssertionError("unreachable")


def hop_seconds(hops: Mapping[str, Any]) -> dict[str, float]:
    """What lay between the moments of a message's way (delivery's `hops`): `commit`, `append`, `apply`, as far as both
    of their moments are known. Kafka's clock tells milliseconds, cut off: nothing is less than 0."""
    moments = [_moment(hops.get(f"{name}_at")) for name in _HOPS]
    names = ("commit", "append", "apply")
    return {
        name: max(0.0, (end - start).total_seconds())
        for name, (start, end) in zip(names, pairwise(moments), strict=True)
        if start is not None and end is not None
    }


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message came back. `is_late`: it had been given up as lost."""

    partition: int
    seconds: float
    is_late: bool = False


@dataclass(slots=True)
class _Sent:
    partition: int
    at: float
    is_accepted: bool = False


@dataclass(slots=True)
class Ledger:
    """The canary's messages that are on their way. Times are in seconds, of one clock."""

    lost_after_seconds: float
    _waiting: dict[str, _Sent] = field(default_factory=dict)
    _lost: dict[str, _Sent] = field(default_factory=dict)

    @property
    def waiting(self) -> int:
        """How many are on their way."""
        return len(self._waiting)

    def send(self, message_id: str, partition: int, *, now: float) -> None:
        """A message is about to be sent."""
        self._waiting[message_id] = _Sent(partition, now)

    def accept(self, message_id: str) -> None:
        """It was accepted: from now on it may be lost. (It may have come back already.)"""
        if message_id in self._waiting:
            self._waiting[message_id].is_accepted = True

    def refuse(self, message_id: str) -> None:
        """It was not accepted, as far as is known."""
        self._waiting.pop(message_id, None)

    def arrive(self, message_id: str, *, now: float) -> Arrival | None:
        """It came back; None if it is none of these (another canary's, or one from before this one started)."""
        sent = self._waiting.pop(message_id, None)
        if sent is not None:
            return Arrival(sent.partition, now - sent.at)
        sent = self._lost.pop(message_id, None)
        return None if sent is None else Arrival(sent.partition, now - sent.at, is_late=True)

    def give_up(self, *, now: float) -> list[int]:
        """The partitions of the accepted messages that have been away for too long: they count as lost, each once."""
        late = [
            message_id
            for message_id, sent in self._waiting.items()
            if sent.is_accepted and now - sent.at > self.lost_after_seconds
        ]
        for message_id in late:
            self._lost[message_id] = self._waiting.pop(message_id)
        while len(self._lost) > REMEMBERED_LOST:
            self._lost.pop(next(iter(self._lost)))
        return [self._lost[message_id].partition for message_id in late if message_id in self._lost]
