"""What was never streamed: told from the seqs that Kafka holds and where each conversation ends. Pure; no I/O.

Seqs of a conversation are dense, so a seq that no record tells is one that was never streamed, unless it is older than
the oldest records that Kafka still keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple


class Stretch(NamedTuple):
    """Entries of one conversation that follow each other, both ends included."""

    conversation_id: str
    first_seq: int
    last_seq: int

    @property
    def entries(self) -> int:
        """How many they are."""
        return self.last_seq - self.first_seq + 1


class End(NamedTuple):
    """Where a conversation ends in the log. `is_recent`: its last entry is not older than what Kafka was asked for."""

    conversation_id: str
    last_seq: int
    is_recent: bool


@dataclass(slots=True)
class Heard:
    """The seqs that records tell. Costs a few numbers per conversation, however many records there are."""

    _ranges: dict[str, list[int]] = field(default_factory=dict)

    def add(self, conversation_id: str, seq: int) -> None:
        """Takes a record. Records of one conversation come in the order of the topic: mostly seq by seq."""
        ranges = self._ranges.get(conversation_id)
        if ranges is None:
            self._ranges[conversation_id] = [seq, seq]
        elif seq == ranges[-1] + 1:
            ranges[-1] = seq
        elif not ranges[-2] <= seq <= ranges[-1]:
            ranges += (seq, seq)

    def has(self, conversation_id: str) -> bool:
        """Whether any record tells of this conversation."""
        return conversation_id in self._ranges

    def covers(self, stretch: Stretch) -> bool:
        """Whether records tell all of these entries."""
        return any(first <= stretch.first_seq and stretch.last_seq <= last for first, last in self._merged(stretch[0]))

    def holes(self, conversation_id: str, last_seq: int) -> Iterator[Stretch]:
        """The stretches up to `last_seq` that no record tells, in seq order."""
        next_seq = 1
        for first, last in self._merged(conversation_id):
            if first > next_seq:
                yield Stretch(conversation_id, next_seq, min(first - 1, last_seq))
            next_seq = max(next_seq, last + 1)
            if next_seq > last_seq:
                return
        yield Stretch(conversation_id, next_seq, last_seq)

    def _merged(self, conversation_id: str) -> list[tuple[int, int]]:
        flat = self._ranges.get(conversation_id, [])
        merged: list[tuple[int, int]] = []
        for first, last in sorted(zip(flat[::2], flat[1::2], strict=True)):
            if merged and first <= merged[-1][1] + 1:
                merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
            else:
                merged.append((first, last))
        return merged


def find_missing(
    heard: Heard, ends: Iterable[End], find_first: Callable[[Stretch], int | None] | None
) -> Iterator[Stretch]:
    """The stretches that were never streamed, conversation by conversation, in seq order.

    `find_first` answers the first seq of a stretch that is young enough for Kafka to hold it still (None: none of it
    is); it is asked about what lies before a conversation's first record. None when Kafka has kept everything."""
    for end in ends:
        if not end.is_recent and not heard.has(end.conversation_id):
            continue
        for hole in heard.holes(end.conversation_id, end.last_seq):
            if hole.first_seq > 1 or find_first is None:
                yield hole
            elif (first_seq := find_first(hole)) is not None:
                yield hole._replace(first_seq=first_seq)


def batches(stretches: Iterable[Stretch], size: int) -> Iterator[list[Stretch]]:
    """The same entries in the same order, at most `size` of them together; a stretch is cut where it must be."""
    batch: list[Stretch] = []
    room = size
    for stretch in stretches:
        left = stretch
        while left.entries > room:
            batch.append(left._replace(last_seq=left.first_seq + room - 1))
            left = left._replace(first_seq=left.first_seq + room)
            yield batch
            batch, room = [], size
        batch.append(left)
        room -= left.entries
        if room == 0:
            yield batch
            batch, room = [], size
    if batch:
        yield batch


@dataclass(frozen=True, slots=True)
class Pace:
    """Keeps a count at or below `per_second`."""

    per_second: float
    started: float

    def wait_seconds(self, done: int, now: float) -> float:
        """How long to wait before more is done; `started` and `now` in the seconds of one clock."""
        return max(0.0, done / self.per_second - (now - self.started))


class Arrivals:
    """What was brought back, seen again as records: which of it has come, and whether each conversation's came in
    order. Each stretch belongs to one conversation; one that has several gets them in seq order."""

    def __init__(self, missing: Iterable[Stretch]) -> None:
        self._expected: dict[str, list[Stretch]] = {}
        for stretch in missing:
            self._expected.setdefault(stretch.conversation_id, []).append(stretch)
        self.awaited = sum(stretch.entries for stretches in self._expected.values() for stretch in stretches)
        self.arrived = 0

    def take(self, conversation_id: str, seq: int) -> None:
        """Takes a record. Only the next one that is expected counts, so a record out of order is awaited still."""
        expected = self._expected.get(conversation_id)
        if not expected or expected[0].first_seq != seq:
            return
        self.arrived += 1
        if seq < expected[0].last_seq:
            expected[0] = expected[0]._replace(first_seq=seq + 1)
        else:
            expected.pop(0)
            if not expected:
                del self._expected[conversation_id]

    @property
    def is_complete(self) -> bool:
        """Whether all of it has come, in order."""
        return not self._expected
