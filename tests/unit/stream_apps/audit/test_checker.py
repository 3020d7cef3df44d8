"""The checker, tested with planted faults: each is found, as what it is, and nothing else is."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.redis_keys import TIMELINE_LENGTH, Participation, Receipt
from stream_apps.audit.checker import (
    Copied,
    Fault,
    Follower,
    HeldTable,
    Kind,
    Place,
    check_density,
    check_records,
    check_state,
    check_table,
    first_expected,
    lacking,
    tally,
)
from stream_apps.log_reader import ConversationSnapshot, LogEntry, latest_changes
from stream_apps.log_scanner import Density, Touched
from tests.histories import History, Step, steps

HERE, ELSEWHERE = str(uuid.UUID(int=1, version=4)), str(uuid.UUID(int=2, version=4))


def entry(seq: int, *, conversation_id: str = HERE, text: str = "hi") -> LogEntry:
    event_id = str(uuid.uuid5(uuid.UUID(conversation_id), str(seq)))
    event = {"seq": seq, "conversation_id": conversation_id, "event_id": event_id, "message_id": event_id, "text": text}
    return LogEntry(seq, event_id, "MessageSent", json.dumps(event).encode())


def log(length: int, *, conversation_id: str = HERE) -> list[LogEntry]:
    return [entry(seq, conversation_id=conversation_id) for seq in range(1, length + 1)]


def table(entries: Sequence[LogEntry], *, seq: int | None = None) -> HeldTable:
    held = list(entries)
    return HeldTable("e", held[-1].seq if seq is None else seq, None, None, None, held)


def faults_of(held: HeldTable | None, truth: Sequence[LogEntry], *, first_seq: int = 1) -> list[Fault]:
    last_seq = truth[-1].seq
    return check_table(HERE, truth, held, first_seq=first_seq, settled_seq=last_seq, last_seq=last_seq)


def kinds_of(faults: Sequence[Fault]) -> list[tuple[Kind, int]]:
    return [(fault.kind, fault.seq) for fault in faults]


def moved(one: LogEntry, seq: int) -> LogEntry:
    return LogEntry(seq, one.event_id, one.event_type, one.payload)


def drop(entries: list[LogEntry], at: int) -> None:
    del entries[at]


def double(entries: list[LogEntry], at: int) -> None:
    """The event takes the place of the next one as well."""
    entries[at + 1] = moved(entries[at], entries[at + 1].seq)


def double_under_one_seq(entries: list[LogEntry], at: int) -> None:
    """As a stream's second entry of a millisecond: `5-0` and `5-1`."""
    entries.insert(at + 1, entries[at])


def swap(entries: list[LogEntry], at: int) -> None:
    one, other = entries[at], entries[at + 1]
    entries[at], entries[at + 1] = moved(other, one.seq), moved(one, other.seq)


def alter(entries: list[LogEntry], at: int) -> None:
    one = entries[at]
    entries[at] = LogEntry(one.seq, one.event_id, one.event_type, one.payload.replace(b"hi", b"ha"))


def alter_the_type(entries: list[LogEntry], at: int) -> None:
    entries[at] = LogEntry(entries[at].seq, entries[at].event_id, "MessageEdited", entries[at].payload)


def alter_the_id(entries: list[LogEntry], at: int) -> None:
    entries[at] = LogEntry(entries[at].seq, str(uuid.uuid4()), "MessageSent", entries[at].payload)


def cross(entries: list[LogEntry], at: int) -> None:
    entries[at] = entry(entries[at].seq, conversation_id=ELSEWHERE)


def invent(entries: list[LogEntry], at: int) -> None:
    entries[at] = moved(entry(10**6, text="never sent"), entries[at].seq)


PLANTED: list[tuple[Callable[[list[LogEntry], int], None], list[tuple[Kind, int]]]] = [
    (drop, [(Kind.GAP, 0)]),
    (double, [(Kind.DUPLICATE, 1)]),
    (double_under_one_seq, [(Kind.DUPLICATE, 0)]),
    (swap, [(Kind.REORDER, 0), (Kind.REORDER, 1)]),
    (alter, [(Kind.ALTERED, 0)]),
    (alter_the_type, [(Kind.ALTERED, 0)]),
    (alter_the_id, [(Kind.ALTERED, 0)]),
    (cross, [(Kind.FOREIGN, 0)]),
    (invent, [(Kind.PHANTOM, 0)]),
]
"""A fault, and what it is: kinds, and their places relative to where it was planted."""

plantings = pytest.mark.parametrize(("plant", "expected"), PLANTED, ids=[plant.__name__ for plant, _ in PLANTED])


@plantings
@pytest.mark.parametrize("at", [1, 17, 47])
def test_a_planted_fault_is_found_in_the_table(
    plant: Callable[[list[LogEntry], int], None], expected: list[tuple[Kind, int]], at: int
) -> None:
    entries = log(50)
    plant(entries, at)
    assert kinds_of(faults_of(table(entries), log(50))) == [(kind, at + 1 + offset) for kind, offset in expected]


@given(st.lists(st.tuples(st.sampled_from(range(len(PLANTED))), st.integers(0, 18)), min_size=1, max_size=8))
def test_of_many_planted_faults_each_is_found(planted: list[tuple[int, int]]) -> None:
    """One fault per five entries, so that they do not hide each other."""
    entries = log(100)
    places = {slot: number for number, slot in planted}
    expected: set[tuple[Kind, int]] = set()
    for slot in sorted(places, reverse=True):
        plant, kinds = PLANTED[places[slot]]
        at = slot * 5 + 1
        plant(entries, at)
        expected |= {(kind, at + 1 + offset) for kind, offset in kinds}
    assert set(kinds_of(faults_of(table(entries), log(100)))) == expected


@given(st.integers(1, 60), st.integers(1, 60))
def test_a_faithful_table_has_no_fault(length: int, first_seq: int) -> None:
    first_seq = min(first_seq, length)
    truth = log(length)[first_seq - 1 :]
    assert faults_of(table(truth), truth, first_seq=first_seq) == []


def test_what_lacks_at_an_end_is_missing() -> None:
    truth = log(10)
    assert kinds_of(faults_of(None, truth)) == [(Kind.MISSING, 0)]
    assert kinds_of(faults_of(table(truth[2:]), truth)) == [(Kind.MISSING, 1)]
    assert kinds_of(faults_of(table(truth[:-2]), truth)) == [(Kind.MISSING, 9)]
    assert kinds_of(faults_of(table(truth[:-2], seq=10), truth)) == [(Kind.MISSING, 9)]
    assert kinds_of(faults_of(HeldTable("e", 10, None, None, None, []), truth)) == [(Kind.MISSING, 1)]


def test_what_postgres_does_not_have_is_a_phantom() -> None:
    truth = log(10)
    assert kinds_of(faults_of(table(log(12)), truth)) == [(Kind.PHANTOM, 11), (Kind.PHANTOM, 12)]
    assert kinds_of(faults_of(table(truth, seq=12), truth)) == [(Kind.MISSING, 11), (Kind.PHANTOM, 12)]


def test_entries_that_are_still_young_may_lack() -> None:
    truth = log(10)
    assert check_table(HERE, truth, table(truth[:7]), first_seq=1, settled_seq=7, last_seq=10) == []
    assert check_table(HERE, truth, None, first_seq=1, settled_seq=0, last_seq=10) == []


def test_a_head_that_lags_behind_its_own_timeline_is_a_fault() -> None:
    truth = log(10)
    assert (Kind.STATE, 0) in kinds_of(faults_of(table(truth, seq=8), truth))


def snapshot(length: int, *, entries: int = TIMELINE_LENGTH + 200) -> ConversationSnapshot:
    newest = log(length)[-entries:]
    return ConversationSnapshot(
        HERE,
        length,
        "title",
        {"user": Participation(1, None, "admin")},
        {"user": Receipt(3, 2)},
        newest[-1].payload,
        None,
        newest,
    )


def whole(one: ConversationSnapshot) -> HeldTable:
    return HeldTable(
        "e",
        one.seq,
        one.title,
        one.last_message,
        one.last_change,
        list(one.entries),
        dict(one.participants),
        {name: (change.seq, change.payload) for name, change in latest_changes(one.entries).items()},
        dict(one.receipts),
    )


def test_a_long_table_is_checked_from_where_it_begins_but_it_must_not_begin_too_late() -> None:
    one = snapshot(3000)
    held = whole(one)
    assert first_expected(held, one) == 1801
    held.entries = held.entries[150:]
    assert first_expected(held, one) == 1951
    held.entries = held.entries[200:]
    assert first_expected(held, one) == 2001
    held.entries = []
    assert first_expected(held, one) == 2001
    assert first_expected(None, one) == 1


def test_each_part_of_the_state_is_compared() -> None:
    one = snapshot(5)
    assert check_state(whole(one), one) == []
    changed = whole(one)
    changed.title = None
    changed.last_message = b"{}"
    changed.participants = {}
    changed.receipts = {"user": Receipt(3, 3)}
    changed.changes = {"message": (4, b"{}")}
    (fault,) = check_state(changed, one)
    assert fault.kind is Kind.STATE
    assert fault.detail.endswith("title, last message, participants, receipts, changes")
    changed.seq = 4
    assert check_state(changed, one) == [], "nothing can be told of a table that is elsewhere"


@given(steps)
def test_the_state_after_any_history_is_found_right_and_any_change_of_it_wrong(taken: list[Step]) -> None:
    one = History(HERE, taken).snapshot()
    held = whole(one)
    assert check_state(held, one) == []
    held.participants = {user: stay._replace(role="guest") for user, stay in one.participants.items()}
    assert [fault.kind for fault in check_state(held, one)] == [Kind.STATE]


def test_a_log_that_is_not_dense_is_a_fault_of_postgres() -> None:
    assert check_density(HERE, Density(5, 5, 1, 5)) == []
    assert check_density(HERE, Density(0, 0, 0, 0)) == []
    for density, kind in [
        (Density(5, 4, 1, 5), Kind.GAP),
        (Density(5, 4, 2, 5), Kind.GAP),
        (Density(5, 4, 1, 4), Kind.GAP),
        (Density(5, 0, 0, 0), Kind.GAP),
        (Density(4, 5, 1, 5), Kind.PHANTOM),
    ]:
        (fault,) = check_density(HERE, density)
        assert (fault.place, fault.kind) == (Place.POSTGRES, kind)


def copied(one: LogEntry, offset: int = 0, *, conversation_id: str = HERE) -> Copied:
    return Copied(conversation_id, one, 0, offset)


def faults_of_topic(records: Sequence[LogEntry], truth: Sequence[LogEntry]) -> list[tuple[Kind, int]]:
    """What following and comparing these records of one conversation finds."""
    follower = Follower()
    found: list[tuple[Kind, int]] = []
    for one in records:
        kind = follower.follow(HERE, one.seq)
        if kind is not None:
            found.append((kind, one.seq))
    found += kinds_of(check_records([copied(one) for one in records], truth))
    found += kinds_of(follower.holes())
    return found + kinds_of(lacking(follower, {HERE: Touched(1, len(truth))}, is_whole=True))


def test_faithful_records_have_no_fault() -> None:
    assert faults_of_topic(log(30), log(30)) == []


@pytest.mark.parametrize(
    ("plant", "expected"),
    [
        (drop, [(Kind.GAP, 11)]),
        (double_under_one_seq, [(Kind.DUPLICATE, 11)]),
        (swap, [(Kind.REORDER, 11), (Kind.REORDER, 12)]),
        (alter, [(Kind.ALTERED, 11)]),
        (alter_the_id, [(Kind.ALTERED, 11)]),
        (cross, [(Kind.FOREIGN, 11)]),
        (invent, [(Kind.PHANTOM, 11)]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_planted_fault_is_found_in_the_topic(
    plant: Callable[[list[LogEntry], int], None], expected: list[tuple[Kind, int]]
) -> None:
    records = log(30)
    plant(records, 10)
    assert faults_of_topic(records, log(30)) == expected


def test_records_that_changed_places_are_out_of_order() -> None:
    records = log(30)
    records[10], records[11] = records[11], records[10]
    assert faults_of_topic(records, log(30)) == [(Kind.REORDER, 11)]


def test_a_record_in_another_conversation_is_found_in_both() -> None:
    """Its key was changed: one conversation lacks it, the other one has it."""
    records = log(30)
    lost = records.pop(10)
    assert faults_of_topic(records, log(30)) == [(Kind.GAP, 11)]
    (fault,) = check_records([copied(lost, conversation_id=ELSEWHERE)], log(30, conversation_id=ELSEWHERE))
    assert fault.kind is Kind.FOREIGN


def test_what_the_topic_lacks_at_its_ends_is_missing() -> None:
    assert faults_of_topic(log(30)[:-3], log(30)) == [(Kind.MISSING, 28)]
    assert faults_of_topic(log(30)[3:], log(30)) == [(Kind.MISSING, 1)]
    follower = Follower()
    assert kinds_of(lacking(follower, {HERE: Touched(4, 9)}, is_whole=True)) == [(Kind.MISSING, 4)]
    assert lacking(follower, {HERE: Touched(4, 9)}, is_whole=False) == []
    follower.follow(HERE, 7)
    assert kinds_of(lacking(follower, {HERE: Touched(4, 9)}, is_whole=False)) == [(Kind.MISSING, 8)]


def test_redelivery_after_a_restart_is_counted_and_is_no_failure() -> None:
    records = [*log(20), *log(30)[12:]]
    found = faults_of_topic(records, log(30))
    assert found == [(Kind.DUPLICATE, seq) for seq in range(13, 21)]
    assert Fault(Place.KAFKA, Kind.DUPLICATE, HERE, 13, "").is_allowed
    assert not Fault(Place.REDIS, Kind.DUPLICATE, HERE, 13, "").is_allowed


@given(st.randoms(use_true_random=False), st.integers(1, 5))
def test_redelivery_of_any_ends_hides_no_gap(chance: random.Random, restarts: int) -> None:
    """What writes to Kafka begins again somewhere before where it was, as often as it likes; one record is lost."""
    seqs: list[int] = []
    for _ in range(restarts):
        begin = chance.randint(1, max(seqs, default=0) + 1)
        seqs += range(begin, min(40, begin + chance.randint(1, 15)) + 1)
    seqs += range(max(seqs) + 1, 41)
    lost = chance.randint(2, 39)
    follower = Follower()
    kinds = {follower.follow(HERE, seq) for seq in seqs if seq != lost}
    if seqs[0] == 1:
        assert kinds <= {None, Kind.DUPLICATE}
    assert kinds_of(follower.holes()) == [(Kind.GAP, lost)]


def test_a_follower_forgets_the_longest_unseen_conversations_and_gaps_that_were_told() -> None:
    follower = Follower(most=2)
    follower.follow("one", 1)
    follower.follow("one", 3)
    follower.follow("two", 1)
    follower.follow("three", 1)
    assert follower.find("one") is None
    assert follower.holes() == []
    follower.follow("two", 4)
    assert len(follower.holes()) == 1
    follower.close("two")
    assert follower.holes() == []
    assert follower.find("two") is not None


def test_faults_are_tallied_by_place_and_kind() -> None:
    assert tally(faults_of(table(log(50)[:20] + log(50)[21:30] + log(50)[31:]), log(50))) == {"redis.gap": 2}
