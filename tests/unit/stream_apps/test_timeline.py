"""The timeline app's decisions: whatever is redelivered, cut off, missing or poisoned, the tables become what the log
says."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from schemas.ids import conversation_key
from schemas.passages import Passage
from schemas.redis_keys import Participation, Receipt, Stay
from stream_apps.base import is_passing
from stream_apps.dead_letter_limit import TooManyDeadLetters
from stream_apps.log_reader import LogEntry
from stream_apps.parking import ParkingLot
from stream_apps.records import Record
from stream_apps.settings import StreamSettings
from stream_apps.telemetry import TimelineMetrics
from stream_apps.timeline.agents import Receipts, Timeline
from stream_apps.timeline.app import create_app
from stream_apps.timeline.projection import project
from tests import histories
from tests.fakes import ConversationTable, InMemoryLog, InMemoryTables, StoredConversation, message_id_of
from tests.histories import History, Step, steps

CONVERSATIONS = [str(uuid.UUID(int=number, version=4)) for number in range(1, 4)]
USERS = [str(uuid.UUID(int=number, version=4)) for number in range(101, 103)]


class FakeRecord(NamedTuple):
    """A record without Kafka."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    topic: str = "conversation.events"
    partition: int = 0
    offset: int = 0
    timestamp: int = 0


STAYS = {USERS[0]: Participation(1, None, "admin"), USERS[1]: Participation(1, None, "member")}


@dataclass
class KeptDeadLetters:
    """Keeps what is set aside."""

    kept: list[tuple[Record, str]] = field(default_factory=list)

    async def send(self, record: Record, reason: str) -> None:
        self.kept.append((record, reason))


def stored_entry(conversation_id: str, seq: int) -> LogEntry:
    event_id = str(uuid.uuid5(uuid.UUID(conversation_id), str(seq)))
    event = {
        "seq": seq,
        "created_at": "2026-01-02T03:04:05.678901Z",
        "event_id": event_id,
        "conversation_id": conversation_id,
        "actor_id": USERS[0],
    }
    if seq == 1:
        event |= {"type": "ConversationCreated", "title": "hello", "participants": USERS}
    else:
        event |= {"type": "MessageSent", "message_id": event_id, "body": {"type": "text", "text": f"number {seq}"}}
    return LogEntry(seq, event_id, str(event["type"]), json.dumps(event, separators=(",", ":")).encode())


def record_of(conversation_id: str, entry: LogEntry) -> FakeRecord:
    headers = [
        ("id", entry.event_id.encode()),
        ("eventType", entry.event_type.encode()),
        ("seq", str(entry.seq).encode()),
        ("traceparent", None),
    ]
    return FakeRecord(conversation_key(conversation_id).encode(), entry.payload, headers, offset=entry.seq)


@dataclass
class World:
    """A timeline app between doubles, and a log of three conversations with some entries each."""

    log: InMemoryLog
    tables: InMemoryTables = field(default_factory=InMemoryTables)
    dead_letters: KeptDeadLetters = field(default_factory=KeptDeadLetters)
    now: float = 0.0

    def clock(self) -> float:
        return self.now

    def __post_init__(self) -> None:
        self.registry = CollectorRegistry()
        metrics = TimelineMetrics(self.registry)
        self.lot = ParkingLot(10, conversations=metrics.parked_conversations, is_passing=is_passing, clock=self.clock)
        self.timeline = Timeline(self.tables, self.log, self.dead_letters, self.lot, metrics)
        self.receipts = Receipts(self.tables, self.log, self.dead_letters, metrics)

    def records(self) -> list[FakeRecord]:
        """Every record there is, each conversation's in order, the conversations interleaved."""
        found = [
            (entry.seq, record_of(conversation_id, entry))
            for conversation_id, stored in self.log.conversations.items()
            for entry in stored.entries
        ]
        return [record for _, record in sorted(found, key=lambda pair: pair[0])]

    def held(self) -> dict[str, ConversationTable]:
        """The tables, but for their epochs."""
        return {name: replace(t, epoch=0) for name, t in self.tables.conversations.items()}


def world(entries: int = 6) -> World:
    return World(
        InMemoryLog(
            {
                conversation_id: StoredConversation(
                    "hello",
                    STAYS,
                    [stored_entry(conversation_id, seq) for seq in range(1, entries + 1)],
                )
                for conversation_id in CONVERSATIONS
            }
        )
    )


def expected(entries: int = 6) -> dict[str, ConversationTable]:
    """What the tables must be: a fresh reading of the log."""
    return {
        conversation_id: ConversationTable(
            0,
            entries,
            "hello",
            stored_entry(conversation_id, entries).payload,
            None,
            STAYS,
            {},
            [
                (e.seq, e.event_type, e.event_id, e.payload)
                for e in (stored_entry(conversation_id, seq) for seq in range(1, entries + 1))
            ],
        )
        for conversation_id in CONVERSATIONS
    }


async def test_records_become_the_tables() -> None:
    it = world()
    await it.timeline.apply(it.records())
    assert it.held() == expected()
    assert it.tables.users == {user: dict.fromkeys(CONVERSATIONS, Stay(1, None)) for user in USERS}
    published = [(name, frame.seq) for name, frame in it.tables.published]
    assert sorted(published) == sorted((name, seq) for name in CONVERSATIONS for seq in range(1, 7))


@given(st.data())
async def test_any_redelivery_leads_to_the_same_tables(data: st.DataObject) -> None:
    """Kafka gives a sequence of batches, each of which may start again anywhere before the end of the last."""
    it = world()
    records = it.records()
    end = 0
    while end < len(records):
        start = data.draw(st.integers(0, end), label="redelivered from")
        end = data.draw(st.integers(end + 1, len(records)), label="up to")
        await it.timeline.apply(records[start:end])
    assert it.held() == expected()
    published = [(name, frame.seq) for name, frame in it.tables.published]
    assert len(published) == len(set(published)), "no event is published twice"


@given(st.permutations(range(3)))
async def test_the_order_across_conversations_is_free(order: list[int]) -> None:
    it = world()
    records = it.records()
    for index in order:
        key = conversation_key(CONVERSATIONS[index]).encode()
        await it.timeline.apply([record for record in records if record.key == key])
    assert it.held() == expected()


@given(st.sets(st.integers(0, 14)))
async def test_missing_records_are_fetched_from_the_log(missing: set[int]) -> None:
    """Whatever never arrives, except for a conversation's last one, is filled in."""
    it = world()
    records = it.records()
    await it.timeline.apply([record for index, record in enumerate(records) if index not in missing])
    assert it.held() == expected()


@given(st.integers(1, 17))
async def test_tables_that_were_lost_are_rebuilt_by_the_next_event(lost_after: int) -> None:
    it = world()
    records = it.records()
    await it.timeline.apply(records[:lost_after])
    epochs = {name: table.epoch for name, table in it.tables.conversations.items()}
    it.tables.conversations.clear()
    it.tables.users.clear()
    await it.timeline.apply(records[lost_after:])
    touched = {r.key for r in records[lost_after:]}
    held = it.held()
    for name, table in expected().items():
        if conversation_key(name).encode() in touched:
            assert held[name] == table
            assert it.tables.conversations[name].epoch != epochs.get(name)


async def test_a_rebuild_tells_watchers_of_the_newest_event() -> None:
    it = world()
    records = it.records()
    await it.timeline.apply(records[:6])
    it.tables.conversations.clear()
    it.tables.published.clear()
    await it.timeline.apply(records[6:7])
    assert [frame.seq for _, frame in it.tables.published] == [6], "one frame, of the newest entry in the log"


async def test_an_unreadable_record_is_set_aside_and_the_others_go_on() -> None:
    it = world()
    broken = FakeRecord(b"nobody", b"{}", [], offset=99)
    await it.timeline.apply([broken, *it.records()])
    assert it.held() == expected()
    assert [(record.offset, reason.split(":")[0]) for record, reason in it.dead_letters.kept] == [(99, "MalformedKey")]


async def test_a_creation_that_breaks_its_schema_keeps_its_place() -> None:
    it = world()
    entry = stored_entry(CONVERSATIONS[0], 1)
    poison = record_of(
        CONVERSATIONS[0], LogEntry(1, entry.event_id, entry.event_type, b'{"type": "ConversationCreated"}')
    )
    following = record_of(CONVERSATIONS[0], stored_entry(CONVERSATIONS[0], 2))
    await it.timeline.apply([poison, following])
    assert [seq for seq, *_ in it.tables.conversations[CONVERSATIONS[0]].timeline] == [1, 2]
    assert len(it.dead_letters.kept) == 1


async def test_a_type_of_a_later_version_keeps_its_place() -> None:
    it = world()
    entry = stored_entry(CONVERSATIONS[0], 2)
    later = record_of(CONVERSATIONS[0], LogEntry(2, entry.event_id, "MessagePinned", b"{}"))
    await it.timeline.apply([record_of(CONVERSATIONS[0], stored_entry(CONVERSATIONS[0], 1)), later])
    assert [kind for _, kind, *_ in it.tables.conversations[CONVERSATIONS[0]].timeline] == [
        "ConversationCreated",
        "MessagePinned",
    ]
    assert it.dead_letters.kept == []


async def test_a_conversation_that_postgres_does_not_know_is_set_aside() -> None:
    it = world()
    phantom = str(uuid.uuid4())
    await it.timeline.apply([record_of(phantom, stored_entry(phantom, 5)), *it.records()])
    assert phantom not in it.tables.conversations
    assert [reason for _, reason in it.dead_letters.kept] == ["Postgres has no such conversation"]
    assert it.held() == expected()


async def wait(it: World, *, seconds: int) -> None:
    """Time passes, and the parked conversations are attended to."""
    for second in range(seconds):
        it.now = float(second)
        await it.lot.attend(it.timeline)


async def test_a_gap_that_postgres_cannot_fill_parks_its_conversation_alone() -> None:
    it = world()
    beyond = record_of(CONVERSATIONS[0], stored_entry(CONVERSATIONS[0], 9))
    (settled,) = await it.timeline.apply([beyond, *it.records()[1:]])
    assert it.held() == expected(), "the others, and what Postgres has of this one"
    assert not settled.done()
    it.now = 1.0
    await it.lot.attend(it.timeline)
    assert not settled.done()
    log = it.log.conversations[CONVERSATIONS[0]].entries
    log += [stored_entry(CONVERSATIONS[0], seq) for seq in (7, 8, 9)]
    it.now = 5.0
    await it.lot.attend(it.timeline)
    assert settled.done()
    assert [seq for seq, *_ in it.held()[CONVERSATIONS[0]].timeline] == list(range(1, 10))
    assert it.dead_letters.kept == []


async def test_what_stays_unapplicable_becomes_a_dead_letter_and_its_conversation_goes_on() -> None:
    it = world()
    poison = record_of(CONVERSATIONS[0], stored_entry(CONVERSATIONS[0], 90))._replace(offset=1000)
    (settled,) = await it.timeline.apply([poison, *it.records()])
    assert it.held() == expected(), "what comes behind it does not wait"
    it.log.conversations[CONVERSATIONS[0]].entries.append(stored_entry(CONVERSATIONS[0], 7))
    assert await it.timeline.apply([record_of(CONVERSATIONS[0], stored_entry(CONVERSATIONS[0], 7))]) == []
    await wait(it, seconds=60)
    assert settled.done()
    ((record, reason),) = it.dead_letters.kept
    assert record.offset == 1000
    assert reason.endswith("the table is at 7, Postgres is no further, and Kafka brings 90")
    assert [seq for seq, *_ in it.held()[CONVERSATIONS[0]].timeline] == list(range(1, 8))


@given(st.data())
async def test_poison_anywhere_costs_the_others_nothing(data: st.DataObject) -> None:
    """Records that no conversation can have, between those that it has, in any batches."""
    it = world()
    records = it.records()
    for number in range(data.draw(st.integers(1, 6), label="poison records")):
        seq = data.draw(st.integers(8, 10_000), label="a seq that there is not")
        name = data.draw(st.sampled_from(CONVERSATIONS), label="of this conversation")
        poison = record_of(name, stored_entry(name, seq))
        broken = data.draw(st.sampled_from([poison, poison._replace(key=b"x"), poison._replace(value=None)]))
        at = data.draw(st.integers(0, len(records)), label="before this record")
        records.insert(at, broken._replace(offset=1000 + number))
    poisoned = {record.offset for record in records if record.offset >= 1000}
    end = 0
    while end < len(records):
        start = end
        end = data.draw(st.integers(start + 1, len(records)), label="up to")
        await it.timeline.apply(records[start:end])
    assert it.held() == expected()
    await wait(it, seconds=60)
    assert it.held() == expected()
    assert {record.offset for record, _ in it.dead_letters.kept} == poisoned
    assert len(it.dead_letters.kept) == len(poisoned), "each once"


async def test_damaged_tables_are_made_anew_from_postgres() -> None:
    it = world()
    records = it.records()
    await it.timeline.apply(records[:9])
    it.tables.damaged = {CONVERSATIONS[1]: "WRONGTYPE Operation against a key"}
    assert await it.timeline.apply(records[9:]) == []
    assert it.held() == expected()
    assert it.dead_letters.kept == []


async def test_receipts_over_damaged_tables_are_made_anew_too() -> None:
    it = world()
    it.tables.damaged = {CONVERSATIONS[0]: "WRONGTYPE Operation against a key"}
    await it.receipts.apply([receipt_record(USERS[0], 1, 1)])
    assert it.held()[CONVERSATIONS[0]] == expected()[CONVERSATIONS[0]]


async def test_tables_that_stay_damaged_park_their_conversation_alone() -> None:
    class Stubborn(InMemoryTables):
        async def drop(self, conversation_id: str) -> None:
            """In vain."""

    it = World(world().log, Stubborn(damaged={CONVERSATIONS[2]: "WRONGTYPE Operation against a key"}))
    (settled,) = await it.timeline.apply(it.records())
    assert not settled.done()
    assert CONVERSATIONS[2] in it.lot
    held = it.held()
    assert {name: held[name] for name in CONVERSATIONS[:2]} == {name: expected()[name] for name in CONVERSATIONS[:2]}


async def test_a_bug_that_one_conversation_meets_parks_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    it = world()
    read = it.log.read_snapshot

    async def read_snapshot(conversation_id: str, *, entries: int) -> object:
        if conversation_id == CONVERSATIONS[0]:
            raise KeyError("a bug")
        return await read(conversation_id, entries=entries)

    monkeypatch.setattr(it.log, "read_snapshot", read_snapshot)
    (settled,) = await it.timeline.apply(it.records()[3:])
    assert set(it.held()) == set(CONVERSATIONS[1:])
    assert CONVERSATIONS[0] in it.lot
    settled.cancel()


async def test_an_event_that_breaks_its_parser_keeps_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_payload: bytes) -> object:
        raise RecursionError("too deep")

    monkeypatch.setattr("stream_apps.timeline.projection.parse_event", fail)
    it = world()
    assert await it.timeline.apply(it.records()) == []
    assert [seq for seq, *_ in it.held()[CONVERSATIONS[0]].timeline] == list(range(1, 7))
    assert {reason for _, reason in it.dead_letters.kept} == {"RecursionError: too deep"}
    assert {record.offset for record, _ in it.dead_letters.kept} == {1}, "the creations: no message is parsed"


async def test_a_limit_of_dead_letters_is_told_through_a_parked_conversation() -> None:
    class Full(KeptDeadLetters):
        async def send(self, record: Record, reason: str) -> None:
            raise TooManyDeadLetters("enough")

    it = World(world().log, dead_letters=Full())
    await it.timeline.apply([record_of(CONVERSATIONS[0], stored_entry(CONVERSATIONS[0], 9))])
    with pytest.raises(TooManyDeadLetters):
        await wait(it, seconds=60)
    phantom = str(uuid.uuid4())
    with pytest.raises(TooManyDeadLetters):
        await it.timeline.apply([record_of(phantom, stored_entry(phantom, 5))])


async def test_a_batch_that_failed_half_way_can_be_applied_again() -> None:
    class Fails(InMemoryTables):
        attempts = 0

        async def announce(self, changes: object) -> None:
            self.attempts += 1
            if self.attempts == 1:
                raise ConnectionError

    it = World(world().log, Fails())
    broken = FakeRecord(b"nobody", b"{}", [])
    batch = [broken, *it.records()]
    with pytest.raises(ConnectionError):
        await it.timeline.apply(batch)
    await it.timeline.apply(batch)
    assert it.held() == expected()
    assert len(it.dead_letters.kept) == 1, "no dead letter is sent twice"


def test_no_messages_payload_is_parsed() -> None:
    entry = stored_entry(CONVERSATIONS[0], 2)
    changes = project([record_of(CONVERSATIONS[0], LogEntry(2, entry.event_id, "MessageSent", b"\xff not JSON"))])
    assert changes.events[CONVERSATIONS[0]][0].payload == b"\xff not JSON"
    assert changes.poison == []


@given(steps, st.data())
async def test_any_history_becomes_the_same_tables_in_any_batches(taken: list[Step], data: st.DataObject) -> None:
    """Redelivered, cut off, lost half-way and rebuilt: what is held in the end is what the log says."""
    history = History(CONVERSATIONS[0], taken)
    snapshot = history.snapshot()
    stored = StoredConversation(snapshot.title, snapshot.participants, history.entries)
    it = World(InMemoryLog({CONVERSATIONS[0]: stored}))
    records = [record_of(CONVERSATIONS[0], entry) for entry in history.entries]
    lost_at = data.draw(st.integers(0, len(records)), label="Redis lost at")
    end = 0
    while end < len(records):
        start = data.draw(st.integers(0, end), label="redelivered from")
        end = data.draw(st.integers(end + 1, len(records)), label="up to")
        if start <= lost_at < end:
            it.tables.conversations.clear()
            it.tables.users.clear()
        await it.timeline.apply(records[start:end])
    fresh = InMemoryTables()
    await fresh.rebuild(snapshot)
    (held,) = it.held().values()
    (expected,) = (replace(table, epoch=0) for table in fresh.conversations.values())
    for table in (held, expected):
        if message_id_of(table.last_change) != message_id_of(table.last_message):
            table.last_change = None
    assert held == expected
    for user_id, table_of_user in it.tables.users.items():
        stay = snapshot.participants[user_id]
        assert table_of_user == {CONVERSATIONS[0]: Stay(stay.joined_seq, stay.left_seq)}
    assert it.dead_letters.kept == []


async def test_who_joins_and_who_leaves_is_announced() -> None:
    history = History(CONVERSATIONS[0], [("join", 1), ("leave", 1)])
    it = World(InMemoryLog({CONVERSATIONS[0]: StoredConversation(None, history.snapshot().participants, [])}))
    await it.timeline.apply([record_of(CONVERSATIONS[0], entry) for entry in history.entries])
    announced = [(change.user_id, change.verb, change.seq) for change in it.tables.announced]
    guest = histories.USERS[2]
    assert announced == [
        *((user_id, "joined", 1) for user_id in histories.USERS[:2]),
        (guest, "joined", 2),
        (guest, "left", 3),
    ]
    assert it.tables.users[guest] == {CONVERSATIONS[0]: Stay(2, 3)}


@pytest.mark.parametrize("event_type", ["MessageEdited", "ParticipantLeft", "TitleChanged"])
async def test_an_event_that_breaks_its_schema_keeps_its_place(event_type: str) -> None:
    it = world()
    entry = stored_entry(CONVERSATIONS[0], 2)
    poison = record_of(CONVERSATIONS[0], LogEntry(2, entry.event_id, event_type, b'{"type": "' + event_type.encode()))
    await it.timeline.apply([record_of(CONVERSATIONS[0], stored_entry(CONVERSATIONS[0], 1)), poison])
    table = it.tables.conversations[CONVERSATIONS[0]]
    assert ([seq for seq, *_ in table.timeline], table.participants) == ([1, 2], STAYS)
    assert [reason.split(":")[0] for _, reason in it.dead_letters.kept] == [event_type]


def receipt_record(user_id: str, delivered_seq: int, read_seq: int, **changes: object) -> FakeRecord:
    payload = {
        "type": "ReceiptAdvanced",
        "event_id": str(uuid.uuid4()),
        "conversation_id": CONVERSATIONS[0],
        "user_id": user_id,
        "delivered_seq": delivered_seq,
        "read_seq": read_seq,
        "created_at": "2026-01-02T03:04:05.678901Z",
        **changes,
    }
    headers = [("id", b"x"), ("eventType", b"ReceiptAdvanced"), ("seq", None)]
    return FakeRecord(
        conversation_key(CONVERSATIONS[0]).encode(), json.dumps(payload).encode(), headers, topic="receipt.events"
    )


@given(st.lists(st.tuples(st.sampled_from(USERS), st.integers(0, 9), st.integers(0, 9)), max_size=20), st.data())
async def test_receipts_become_maxima_in_any_order(advances: list[tuple[str, int, int]], data: st.DataObject) -> None:
    it = world()
    records = [receipt_record(*advance) for advance in advances]
    cut = data.draw(st.integers(0, len(records)))
    await it.receipts.apply(data.draw(st.permutations(records))[:cut])
    await it.receipts.apply(data.draw(st.permutations(records)))
    held = it.tables.receipts.get(CONVERSATIONS[0], {})
    for user_id in USERS:
        own = [(delivered, read) for user, delivered, read in advances if user == user_id]
        maxima = Receipt(*map(max, zip(*own, strict=True))) if own else Receipt(0, 0)
        assert held.get(user_id, Receipt(0, 0)) == maxima


async def test_of_receipts_that_follow_on_each_other_only_the_last_is_published() -> None:
    it = world()
    await it.receipts.apply([receipt_record(USERS[0], 1, 0), receipt_record(USERS[0], 2, 2)])
    assert [frame.seq for _, frame in it.tables.published] == [0]
    assert it.tables.receipts == {CONVERSATIONS[0]: {USERS[0]: Receipt(2, 2)}}


async def test_one_app_takes_events_and_receipts_each_by_an_agent_of_its_own() -> None:
    app = create_app(StreamSettings())
    topics = {name: agent.channel.get_topic_name() for name, agent in app.agents.items()}
    assert sorted(topics.values()) == ["conversation.events", "receipt.events"]
    assert len(topics) == 2


async def test_a_receipt_that_cannot_be_read_is_set_aside() -> None:
    it = world()
    broken = [
        receipt_record(USERS[0], 1, 1)._replace(value=None, offset=1),
        receipt_record(USERS[0], 1, 1)._replace(key=b"nobody", offset=2),
        receipt_record(USERS[0], -1, 1)._replace(offset=3),
        receipt_record(USERS[0], 1, 1, conversation_id=CONVERSATIONS[1])._replace(offset=4),
    ]
    await it.receipts.apply([*broken, receipt_record(USERS[0], 1, 1)._replace(offset=5)])
    assert [record.offset for record, _ in it.dead_letters.kept] == [1, 2, 3, 4]
    assert {record.topic for record, _ in it.dead_letters.kept} == {"receipt.events"}
    assert it.tables.receipts == {CONVERSATIONS[0]: {USERS[0]: Receipt(1, 1)}}


async def test_hops_are_measured_once_for_what_was_applied() -> None:
    one = world()
    accepted_us = 1_767_323_045_678_901  # as the payloads say
    records = [record._replace(timestamp=accepted_us // 1000 + 20) for record in one.records()]
    await one.timeline.apply(records)
    await one.timeline.apply(records)
    assert one.registry.get_sample_value("timeline_appended_to_applied_seconds_count") == len(records)
    hops = {
        le: one.registry.get_sample_value("timeline_created_to_appended_seconds_bucket", {"le": le})
        for le in ("0.015", "0.025", "+Inf")
    }
    assert hops == {"0.015": 0, "0.025": len(records), "+Inf": len(records)}


async def test_what_kafka_and_the_trace_say_of_an_event_is_published_with_it() -> None:
    one = world()
    traceparent = f"00-{'ab' * 16}-{'cd' * 8}-01"
    records = [
        record._replace(timestamp=1234, headers=[*record.headers, ("traceparent", traceparent.encode())])
        for record in one.records()
    ]
    await one.timeline.apply(records)
    passages = {frame.passage for _, frame in one.tables.published}
    assert passages == {Passage(1234, traceparent, one.tables.now_us)}
