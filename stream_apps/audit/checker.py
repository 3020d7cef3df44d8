"""The pure part of audit: what is wrong with a copy of a conversation's log, told by comparing it with the log.

The log in Postgres is the truth: entries 1, 2, 3 … without a hole. Redis holds the newest of them once, in order, and
what follows from all of them. Kafka carries each of them at least once; first occurrences are in order.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from schemas.redis_keys import TIMELINE_LENGTH, Participation, Receipt
from stream_apps.log_reader import ConversationSnapshot, LogEntry, latest_changes
from stream_apps.log_scanner import Density, Touched


class Place(StrEnum):
    """Where a fault is."""

    POSTGRES = "postgres"
    KAFKA = "kafka"
    REDIS = "redis"


class Kind(StrEnum):
    """What is wrong. An entry lacks between others (gap) or at an end (missing); is there twice (duplicate), or where
    another belongs (reorder); is not in the log (phantom) or is another conversation's (foreign); reads differently
    (altered). Or what follows from the entries is not what the table says (state)."""

    GAP = "gap"
    MISSING = "missing"
    DUPLICATE = "duplicate"
    REORDER = "reorder"
    PHANTOM = "phantom"
    FOREIGN = "foreign"
    ALTERED = "altered"
    STATE = "state"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong. `seq` is 0 when it is not about one entry. `detail` is a sentence without contents of
    messages."""

    place: Place
    kind: Kind
    conversation_id: str
    seq: int
    detail: str

    @property
    def is_allowed(self) -> bool:
        """Kafka carries a record again after a restart of what writes it. That is counted, and is no failure."""
        return self.place is Place.KAFKA and self.kind is Kind.DUPLICATE


@dataclass(slots=True)
class HeldTable:
    """What Redis holds of a conversation; `entries` from the seq on that was asked for, in the order of the stream.
    The last four are None where they were not asked for."""

    epoch: str
    seq: int
    title: str | None
    last_message: bytes | None
    last_change: bytes | None
    entries: list[LogEntry]
    participants: dict[str, Participation] | None = None
    changes: dict[str, tuple[int, bytes]] | None = None
    receipts: dict[str, Receipt] | None = None


@dataclass(frozen=True, slots=True)
class Copied:
    """A record as Kafka carries it."""

    conversation_id: str
    entry: LogEntry
    partition: int
    offset: int


def check_density(conversation_id: str, density: Density) -> list[Fault]:
    """Whether the log itself is dense, from 1 to where the conversation says that it is."""
    said, entries, first, last = density
    if (entries, first, last) == (said, min(said, 1), said):
        return []
    kind = Kind.PHANTOM if last > said else Kind.GAP
    detail = f"the log has {entries} entries, {first} to {last}, where the conversation is at {said}"
    return [Fault(Place.POSTGRES, kind, conversation_id, 0, detail)]


def check_table(
    conversation_id: str,
    truth: Sequence[LogEntry],
    held: HeldTable | None,
    *,
    first_seq: int,
    settled_seq: int,
    last_seq: int,
) -> list[Fault]:
    """What is wrong with a table from `first_seq` on. `truth` are the log's entries from there on, in seq order, read
    after the table; the log is at `last_seq`. Entries after `settled_seq` are so young that the table may lack them."""

    def fault(kind: Kind, seq: int, detail: str) -> Fault:
        return Fault(Place.REDIS, kind, conversation_id, seq, detail)

    if held is None:
        return [fault(Kind.MISSING, 0, "there is no table")] if settled_seq else []
    faults: list[Fault] = []
    known = {entry.seq: entry for entry in truth}
    places = {entry.event_id: entry.seq for entry in truth}
    seen: set[str] = set()
    expected = first_seq
    for entry in held.entries:
        if entry.seq > expected:
            kind = Kind.GAP if expected > first_seq else Kind.MISSING
            faults.append(fault(kind, expected, f"entries {expected} to {entry.seq - 1} lack"))
        expected = entry.seq + 1
        if entry.seq > last_seq:
            faults.append(fault(Kind.PHANTOM, entry.seq, f"the log is at {last_seq}"))
            continue
        difference = _compare(conversation_id, entry, known, places)
        if difference is not None:
            kind, detail = difference
            is_double = kind is Kind.REORDER and _holds(held.entries, places[entry.event_id], entry.event_id)
            faults.append(fault(Kind.DUPLICATE if is_double else kind, entry.seq, detail))
        elif entry.event_id in seen:
            faults.append(fault(Kind.DUPLICATE, entry.seq, "the event is there twice"))
        seen.add(entry.event_id)
    if held.seq < settled_seq:
        faults.append(fault(Kind.MISSING, held.seq + 1, f"the table is at {held.seq}, the log at {settled_seq}"))
    if held.seq >= expected:
        faults.append(fault(Kind.MISSING, expected, f"entries {expected} to {held.seq} lack at the end"))
    elif held.seq < expected - 1:
        faults.append(fault(Kind.STATE, 0, f"the head says {held.seq}, and the timeline goes to {expected - 1}"))
    if held.seq > last_seq and expected <= last_seq + 1:
        faults.append(fault(Kind.PHANTOM, held.seq, f"the log is at {last_seq}"))
    return faults


def first_expected(held: HeldTable | None, snapshot: ConversationSnapshot) -> int:
    """The first seq that a whole table is checked from: where it begins, but it may not begin later than it has to, and
    what is older than the snapshot's entries cannot be told."""
    if held is None or not snapshot.entries:
        return 1
    latest = max(1, held.seq - TIMELINE_LENGTH + 1)
    begins = held.entries[0].seq if held.entries else latest
    return max(min(latest, begins), snapshot.entries[0].seq)


def check_state(held: HeldTable, snapshot: ConversationSnapshot) -> list[Fault]:
    """What a table says besides its entries, if it is as far as the snapshot; nothing can be told otherwise."""
    if held.seq != snapshot.seq:
        return []
    differing: list[str] = []
    if held.title != snapshot.title:
        differing.append("title")
    if held.last_message != snapshot.last_message:
        differing.append("last message")
    elif _change_of(held.last_message, held.last_change) != snapshot.last_change:
        differing.append("last change")
    if held.participants is not None and held.participants != snapshot.participants:
        differing.append("participants")
    if held.receipts is not None and held.receipts != snapshot.receipts:
        differing.append("receipts")
    if held.changes is not None and held.entries:
        first = max(held.entries[0].seq, snapshot.entries[0].seq if snapshot.entries else 0)
        theirs = {name: change for name, change in held.changes.items() if change[0] >= first}
        ours = {
            name: (change.seq, change.payload)
            for name, change in latest_changes(snapshot.entries).items()
            if change.seq >= first
        }
        if theirs != ours:
            differing.append("changes")
    if not differing:
        return []
    return [Fault(Place.REDIS, Kind.STATE, snapshot.conversation_id, 0, f"not as in Postgres: {', '.join(differing)}")]


@dataclass(slots=True)
class Position:
    """How far a conversation's records were followed; `holes` were passed over and have not come since."""

    first_seq: int
    last_seq: int
    holes: set[int] = field(default_factory=set)


class Follower:
    """Follows the records of all conversations in the order of their offsets: tells redelivery from disorder.

    Knows `most` conversations; of those that were forgotten it takes the next record for the first."""

    def __init__(self, *, most: int = 100_000) -> None:
        self._most = most
        self._positions: OrderedDict[str, Position] = OrderedDict()
        self._open: set[str] = set()

    def follow(self, conversation_id: str, seq: int) -> Kind | None:
        """What is to be said of a record's place: DUPLICATE if it came before, REORDER if a later one did, else None.
        A hole that it leaves behind is told by `holes`."""
        position = self._positions.get(conversation_id)
        if position is None:
            self._positions[conversation_id] = Position(seq, seq)
            if len(self._positions) > self._most:
                forgotten, _ = self._positions.popitem(last=False)
                self._open.discard(forgotten)
            return None
        self._positions.move_to_end(conversation_id)
        if seq > position.last_seq:
            position.holes.update(range(position.last_seq + 1, min(seq, position.last_seq + 1 + TIMELINE_LENGTH)))
            position.last_seq = seq
            if position.holes:
                self._open.add(conversation_id)
            return None
        if seq in position.holes:
            position.holes.remove(seq)
            return Kind.REORDER
        return Kind.DUPLICATE

    def find(self, conversation_id: str) -> Position | None:
        """How far a conversation was followed; None if it was not seen."""
        return self._positions.get(conversation_id)

    def holes(self) -> list[Fault]:
        """The gaps that there are now."""
        faults: list[Fault] = []
        for name in list(self._open):
            holes = self._positions[name].holes
            if holes:
                detail = f"{len(holes)} records were passed over"
                faults.append(Fault(Place.KAFKA, Kind.GAP, name, min(holes), detail))
            else:
                self._open.remove(name)
        return faults

    def close(self, conversation_id: str) -> None:
        """The conversation's gaps have been told."""
        position = self._positions.get(conversation_id)
        if position is not None:
            position.holes.clear()


def lacking(follower: Follower, expected: Mapping[str, Touched], *, is_whole: bool) -> list[Fault]:
    """What Kafka lacks at the ends of conversations; at their beginnings only if what was read begins where the
    expected entries do (`is_whole`)."""
    faults: list[Fault] = []
    for name, (first_seq, last_seq) in expected.items():
        position = follower.find(name)
        if position is None:
            if is_whole and last_seq >= first_seq:
                detail = f"none of the entries {first_seq} to {last_seq} was carried"
                faults.append(Fault(Place.KAFKA, Kind.MISSING, name, first_seq, detail))
            continue
        if is_whole and position.first_seq > first_seq:
            detail = f"the first record is that of entry {position.first_seq}"
            faults.append(Fault(Place.KAFKA, Kind.MISSING, name, first_seq, detail))
        if position.last_seq < last_seq:
            detail = f"the last record is that of entry {position.last_seq}, the log is at {last_seq}"
            faults.append(Fault(Place.KAFKA, Kind.MISSING, name, position.last_seq + 1, detail))
    return faults


def check_records(records: Sequence[Copied], truth: Sequence[LogEntry]) -> list[Fault]:
    """What is wrong with what records of one conversation say, by the log's entries around their seqs."""
    known = {entry.seq: entry for entry in truth}
    places = {entry.event_id: entry.seq for entry in truth}
    faults: list[Fault] = []
    for record in records:
        difference = _compare(record.conversation_id, record.entry, known, places)
        if difference is not None:
            kind, detail = difference
            where = f"partition {record.partition}, offset {record.offset}: {detail}"
            faults.append(Fault(Place.KAFKA, kind, record.conversation_id, record.entry.seq, where))
    return faults


def tally(faults: Iterable[Fault]) -> dict[str, int]:
    """How many of each kind at each place."""
    counts: dict[str, int] = {}
    for fault in faults:
        name = f"{fault.place}.{fault.kind}"
        counts[name] = counts.get(name, 0) + 1
    return counts


def _compare(
    conversation_id: str, entry: LogEntry, known: Mapping[int, LogEntry], places: Mapping[str, int]
) -> tuple[Kind, str] | None:
    true = known.get(entry.seq)
    if true is not None and true.event_id == entry.event_id:
        return _compare_texts(entry, true)
    place = places.get(entry.event_id)
    if place is not None:
        return Kind.REORDER, f"this is the event of seq {place}"
    about = _fields_of(entry.payload).get("conversation_id")
    if isinstance(about, str) and about != conversation_id:
        return Kind.FOREIGN, f"this is an event of conversation {about}"
    if true is not None and true.payload == entry.payload:
        return Kind.ALTERED, f"the event's id is {entry.event_id}, and {true.event_id} was stored"
    return Kind.PHANTOM, "the log has no such event"


def _compare_texts(entry: LogEntry, true: LogEntry) -> tuple[Kind, str] | None:
    if true.payload != entry.payload:
        return Kind.ALTERED, "the payload is not the stored text"
    if true.event_type != entry.event_type:
        return Kind.ALTERED, f"the type is {entry.event_type}, and {true.event_type} was stored"
    return None


def _holds(entries: Iterable[LogEntry], seq: int, event_id: str) -> bool:
    return any(entry.seq == seq and entry.event_id == event_id for entry in entries)


def _change_of(message: bytes | None, change: bytes | None) -> bytes | None:
    """A last change says nothing when it is of another message than the last one."""
    if message is None or change is None:
        return None
    return change if _fields_of(change).get("message_id") == _fields_of(message).get("message_id") else None


def _fields_of(payload: bytes) -> dict[str, Any]:
    try:
        found = json.loads(payload)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
