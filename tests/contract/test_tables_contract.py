"""One behaviour of the tables, for the in-memory double and for the Lua scripts on a real Redis."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import pytest
from hypothesis import HealthCheck, given, settings
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from schemas import redis_keys
from schemas.passages import NO_ORIGIN, Passage, encode_origin
from schemas.redis_keys import Participation, Receipt, Stay
from stream_apps.log_reader import ConversationSnapshot, LogEntry
from stream_apps.redis_tables.replies import is_passing_reply
from stream_apps.redis_tables.tables import (
    Advanced,
    Applied,
    Head,
    MembershipChange,
    ReceiptChange,
    RedisTables,
    Tables,
    TimelineEvent,
)
from stream_apps.timeline.projection import events_of_entries
from tests.fakes import InMemoryTables, message_id_of
from tests.histories import History, Step, steps
from tests.integration.servers import Server, start_redis


@dataclass
class Held:
    """What the tables hold of a conversation, read back."""

    seq: int
    title: str | None
    last_message: bytes | None
    last_change: bytes | None
    participants: dict[str, Participation]
    changes: dict[str, tuple[int, bytes]]
    receipts: dict[str, Receipt]
    timeline: list[tuple[int, str, str, bytes]]
    epoch: str

    def __post_init__(self) -> None:
        # A change of another message than the last one says nothing.
        if message_id_of(self.last_change) != message_id_of(self.last_message):
            self.last_change = None


class Reading(Protocol):
    """Reads the tables back, each implementation its own way."""

    tables: Tables

    async def find(self, conversation_id: str) -> Held | None: ...
    async def find_user(self, user_id: str) -> dict[str, Stay] | None: ...
    async def listen(self, conversation_id: str) -> None: ...
    async def heard(self, count: int) -> list[tuple[int, str, bytes]]: ...
    async def heard_passages(self, count: int) -> list[Passage | None]: ...


class InMemoryReading:
    def __init__(self) -> None:
        self.memory = InMemoryTables()
        self.tables: Tables = self.memory

    async def find(self, conversation_id: str) -> Held | None:
        table = self.memory.conversations.get(conversation_id)
        if table is None:
            return None
        return Held(
            table.seq,
            table.title,
            table.last_message,
            table.last_change,
            dict(table.participants),
            dict(table.changes),
            dict(self.memory.receipts.get(conversation_id, {})),
            list(table.timeline),
            str(table.epoch),
        )

    async def find_user(self, user_id: str) -> dict[str, Stay] | None:
        return self.memory.users.get(user_id)

    async def listen(self, conversation_id: str) -> None:
        self.memory.published.clear()

    async def heard(self, count: int) -> list[tuple[int, str, bytes]]:
        return [(frame.seq, frame.event_type, frame.payload) for _, frame in self.memory.published]

    async def heard_passages(self, count: int) -> list[Passage | None]:
        return [frame.passage for _, frame in self.memory.published]


class RedisReading:
    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.tables: Tables = RedisTables(redis)

    async def find(self, conversation_id: str) -> Held | None:
        head: Any = await self.redis.hgetall(redis_keys.head_key(conversation_id))
        if not head:
            return None
        participants: Any = await self.redis.hgetall(redis_keys.participants_key(conversation_id))
        changes: Any = await self.redis.hgetall(redis_keys.changes_key(conversation_id))
        receipts: Any = await self.redis.hgetall(redis_keys.receipts_key(conversation_id))
        entries: Any = await self.redis.xrange(redis_keys.timeline_key(conversation_id))
        return Held(
            int(head[b"seq"]),
            head[b"title"].decode() if b"title" in head else None,
            head.get(b"last_message"),
            head.get(b"last_change"),
            {user.decode(): redis_keys.decode_participation(text) for user, text in participants.items()},
            {message_id.decode(): redis_keys.decode_change(value) for message_id, value in changes.items()},
            {user.decode(): redis_keys.decode_receipt(text) for user, text in receipts.items()},
            [
                (int(name.split(b"-")[0]), e[b"type"].decode(), e[b"id"].decode(), e[b"data"])
                for name, e in entries
                if name.endswith(b"-0")
            ],
            head[b"epoch"].decode(),
        )

    async def find_user(self, user_id: str) -> dict[str, Stay] | None:
        table: Any = await self.redis.hgetall(redis_keys.user_conversations_key(user_id))
        if table.pop(redis_keys.USER_COMPLETE.encode(), None) is None:
            return None
        return {conversation_id.decode(): redis_keys.decode_stay(text) for conversation_id, text in table.items()}

    async def listen(self, conversation_id: str) -> None:
        self.pubsub = self.redis.pubsub(ignore_subscribe_messages=True)
        await self.pubsub.subscribe(redis_keys.live_channel(conversation_id))

    async def heard(self, count: int) -> list[tuple[int, str, bytes]]:
        return [(frame.seq, frame.event_type, frame.payload) for frame in await self._frames(count)]

    async def heard_passages(self, count: int) -> list[Passage | None]:
        return [frame.passage for frame in await self._frames(count)]

    async def _frames(self, count: int) -> list[redis_keys.LiveFrame]:
        frames: list[redis_keys.LiveFrame] = []
        async with asyncio.timeout(5):
            while len(frames) < count:
                message: Any = await self.pubsub.get_message(timeout=0.05)
                if message is not None:
                    frames.append(redis_keys.decode_live_frame(message["data"]))
        assert await self.pubsub.get_message(timeout=0.05) is None
        await self.pubsub.aclose()  # type: ignore[no-untyped-call]
        return frames


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with start_redis() as own:
        yield own


@pytest.fixture(params=["in memory", "redis"])
async def reading(request: pytest.FixtureRequest) -> AsyncIterator[Reading]:
    if request.param == "in memory":
        yield InMemoryReading()
        return
    server: Server = request.getfixturevalue("server")
    async with Redis(port=server.port, password=server.password) as redis:
        yield RedisReading(redis)


@pytest.fixture
def conversation_id() -> str:
    return str(uuid.uuid4())


USERS = {str(uuid.uuid4()): Participation(1, None, "admin"), str(uuid.uuid4()): Participation(1, None, "member")}


def effects(**changes: Any) -> str:
    return json.dumps(changes)


def event(seq: int, *, text: str = 'grüß "dich" \n 👋') -> TimelineEvent:
    payload = json.dumps({"seq": seq, "text": text}, ensure_ascii=False).encode()
    if seq == 1:
        stays = {user: redis_keys.encode_participation(stay) for user, stay in USERS.items()}
        return TimelineEvent(
            seq, "ConversationCreated", str(uuid.UUID(int=seq)), payload, effects(title="a tïtle", participants=stays)
        )
    return TimelineEvent(seq, "MessageSent", str(uuid.UUID(int=seq)), payload)


def row(event: TimelineEvent) -> tuple[int, str, str, bytes]:
    return event.seq, event.event_type, event.event_id, event.payload


async def test_events_are_appended_in_order(reading: Reading, conversation_id: str) -> None:
    events = [event(seq) for seq in range(1, 6)]
    assert await reading.tables.apply({conversation_id: events}) == {conversation_id: Applied(5, 0, None)}
    held = await reading.find(conversation_id)
    assert held is not None
    assert held.timeline == [row(e) for e in events]
    assert (held.seq, held.title, held.last_message, held.participants) == (5, "a tïtle", events[4].payload, USERS)


async def test_duplicates_change_nothing(reading: Reading, conversation_id: str) -> None:
    await reading.tables.apply({conversation_id: [event(1), event(2), event(3)]})
    before = await reading.find(conversation_id)
    again = await reading.tables.apply({conversation_id: [event(2, text="altered"), event(3)]})
    assert again == {conversation_id: Applied(0, 2, None)}
    assert await reading.find(conversation_id) == before


async def test_an_overlap_appends_only_what_is_new(reading: Reading, conversation_id: str) -> None:
    await reading.tables.apply({conversation_id: [event(1), event(2)]})
    result = await reading.tables.apply({conversation_id: [event(1), event(2), event(3)]})
    assert result == {conversation_id: Applied(1, 2, None)}
    held = await reading.find(conversation_id)
    assert held is not None
    assert [entry[0] for entry in held.timeline] == [1, 2, 3]


async def test_nothing_is_appended_after_a_gap(reading: Reading, conversation_id: str) -> None:
    await reading.tables.apply({conversation_id: [event(1)]})
    result = await reading.tables.apply({conversation_id: [event(2), event(4), event(5)]})
    assert result == {conversation_id: Applied(1, 0, 2)}
    held = await reading.find(conversation_id)
    assert held is not None
    assert (held.seq, [entry[0] for entry in held.timeline]) == (2, [1, 2])


async def test_a_gap_before_an_absent_table_is_told_apart(reading: Reading, conversation_id: str) -> None:
    result = await reading.tables.apply({conversation_id: [event(7)]})
    assert result == {conversation_id: Applied(0, 0, 0, has_head=False)}
    assert await reading.find(conversation_id) is None


async def test_one_call_applies_many_conversations(reading: Reading) -> None:
    ids = [str(uuid.uuid4()) for _ in range(20)]
    results = await reading.tables.apply({name: [event(1), event(2)] for name in ids})
    assert results == dict.fromkeys(ids, Applied(2, 0, None))


def snapshot(conversation_id: str, seq: int, *, first: int = 1) -> ConversationSnapshot:
    entries = [LogEntry(e.seq, e.event_id, e.event_type, e.payload) for e in map(event, range(first, seq + 1))]
    return ConversationSnapshot(conversation_id, seq, "a tïtle", USERS, {}, entries[-1].payload, None, entries)


async def test_a_rebuild_makes_what_applying_would_have_made(reading: Reading, conversation_id: str) -> None:
    applied = str(uuid.uuid4())
    await reading.tables.apply({applied: [event(seq) for seq in range(1, 5)]})
    assert await reading.tables.rebuild(snapshot(conversation_id, 4))
    one, other = await reading.find(applied), await reading.find(conversation_id)
    assert one is not None
    assert other is not None
    assert one.epoch != other.epoch
    one.epoch = other.epoch
    assert one == other


async def test_a_rebuild_never_rewinds_a_table(reading: Reading, conversation_id: str) -> None:
    await reading.tables.apply({conversation_id: [event(seq) for seq in range(1, 6)]})
    before = await reading.find(conversation_id)
    assert not await reading.tables.rebuild(snapshot(conversation_id, 4))
    assert not await reading.tables.rebuild(snapshot(conversation_id, 5))
    assert await reading.find(conversation_id) == before


async def test_a_rebuild_that_goes_further_starts_a_new_epoch(reading: Reading, conversation_id: str) -> None:
    await reading.tables.apply({conversation_id: [event(1), event(2)]})
    before = await reading.find(conversation_id)
    assert await reading.tables.rebuild(snapshot(conversation_id, 9, first=5))
    after = await reading.find(conversation_id)
    assert before is not None
    assert after is not None
    assert after.epoch != before.epoch
    assert [entry[0] for entry in after.timeline] == [5, 6, 7, 8, 9]
    assert await reading.tables.apply({conversation_id: [event(10)]}) == {conversation_id: Applied(1, 0, None)}


async def test_a_rebuild_replaces_tables_that_are_as_far_only_while_they_are_those_that_were_seen(
    reading: Reading, conversation_id: str
) -> None:
    await reading.tables.apply({conversation_id: [event(1), event(2, text="altered"), event(3)]})
    seen = await reading.find(conversation_id)
    assert seen is not None
    head = Head(seen.epoch, seen.seq)
    assert not await reading.tables.rebuild(snapshot(conversation_id, 3), instead_of=Head("another", 3))
    await reading.tables.apply({conversation_id: [event(4)]})
    assert not await reading.tables.rebuild(snapshot(conversation_id, 3), instead_of=head)
    assert await reading.tables.rebuild(snapshot(conversation_id, 4), instead_of=Head(head.epoch, 4))
    after = await reading.find(conversation_id)
    assert after is not None
    assert after.epoch != seen.epoch
    assert after.timeline == [row(event(seq)) for seq in range(1, 5)]


async def test_only_a_rebuild_instead_of_what_was_seen_takes_a_table_back(
    reading: Reading, conversation_id: str
) -> None:
    await reading.tables.apply({conversation_id: [event(seq) for seq in range(1, 6)]})
    seen = await reading.find(conversation_id)
    assert seen is not None
    assert await reading.tables.rebuild(snapshot(conversation_id, 3), instead_of=Head(seen.epoch, 5))
    after = await reading.find(conversation_id)
    assert after is not None
    assert (after.seq, [entry[0] for entry in after.timeline]) == (3, [1, 2, 3])
    assert await reading.tables.apply({conversation_id: [event(4)]}) == {conversation_id: Applied(1, 0, None)}


async def test_a_join_needs_a_complete_user_table(reading: Reading) -> None:
    user_id, one, other = (str(uuid.uuid4()) for _ in range(3))
    tables = reading.tables
    assert await tables.note_memberships([MembershipChange(user_id, one, 1)]) == [user_id]
    assert await reading.find_user(user_id) is None
    await tables.build_user(user_id, {one: Stay(1, None)})
    joins = [MembershipChange(user_id, other, 4), MembershipChange(user_id, other, 2)]
    assert await tables.note_memberships(joins) == []
    assert await reading.find_user(user_id) == {one: Stay(1, None), other: Stay(4, None)}


async def test_who_leaves_keeps_the_conversation_and_who_comes_back_begins_anew(reading: Reading) -> None:
    user_id, one = str(uuid.uuid4()), str(uuid.uuid4())
    await reading.tables.build_user(user_id, {one: Stay(1, None)})
    for seq, has_left, expected in [
        (5, True, Stay(1, 5)),
        (1, False, Stay(1, 5)),
        (5, True, Stay(1, 5)),
        (9, False, Stay(9, None)),
        (5, True, Stay(9, None)),
        (12, True, Stay(9, 12)),
    ]:
        assert await reading.tables.note_memberships([MembershipChange(user_id, one, seq, has_left)]) == []
        assert await reading.find_user(user_id) == {one: expected}


async def test_leaving_a_conversation_that_the_table_does_not_know_asks_for_the_whole(reading: Reading) -> None:
    user_id, one = str(uuid.uuid4()), str(uuid.uuid4())
    await reading.tables.build_user(user_id, {})
    assert await reading.tables.note_memberships([MembershipChange(user_id, one, 7, has_left=True)]) == [user_id]


async def test_what_postgres_said_a_while_ago_does_not_undo_what_is_newer(reading: Reading) -> None:
    user_id, one, other = (str(uuid.uuid4()) for _ in range(3))
    await reading.tables.build_user(user_id, {one: Stay(1, 5)})
    await reading.tables.build_user(user_id, {one: Stay(1, None), other: Stay(3, None)})
    assert await reading.find_user(user_id) == {one: Stay(1, 5), other: Stay(3, None)}


async def test_a_user_in_no_conversation_has_a_complete_table(reading: Reading) -> None:
    user_id = str(uuid.uuid4())
    await reading.tables.build_user(user_id, {})
    assert await reading.find_user(user_id) == {}


async def test_what_is_left_of_a_table_without_its_head_is_no_hindrance(conversation_id: str, server: Server) -> None:
    async with Redis(port=server.port, password=server.password) as redis:
        reading = RedisReading(redis)
        await reading.tables.apply({conversation_id: [event(1), event(2), event(3)]})
        await redis.delete(redis_keys.head_key(conversation_id))
        assert await reading.tables.apply({conversation_id: [event(1), event(2)]}) == {
            conversation_id: Applied(2, 0, None)
        }
        held = await reading.find(conversation_id)
        assert held is not None
        assert [entry[0] for entry in held.timeline] == [1, 2]


DAMAGES = [redis_keys.head_key, redis_keys.timeline_key, redis_keys.participants_key]


@pytest.mark.parametrize("key", DAMAGES)
async def test_a_conversations_error_is_no_others_and_what_was_applied_before_it_counts(
    key: Callable[[str], str], conversation_id: str, server: Server
) -> None:
    other = str(uuid.uuid4())
    joined = TimelineEvent(
        2, "ParticipantJoined", str(uuid.UUID(int=2)), b"{}", effects(participants={"u": "2::member"})
    )
    async with Redis(port=server.port, password=server.password) as redis:
        reading = RedisReading(redis)
        await reading.tables.apply({conversation_id: [event(1)]})
        await redis.delete(key(conversation_id))
        await redis.set(key(conversation_id), "what is none of ours")
        results = await reading.tables.apply({conversation_id: [joined, event(3)], other: [event(1), event(2)]})
        assert results[other] == Applied(2, 0, None)
        assert "WRONGTYPE" in (results[conversation_id].error or "")
        assert await reading.find(other) is not None
        await reading.tables.drop(conversation_id)
        assert await reading.find(conversation_id) is None
        assert await reading.tables.rebuild(snapshot(conversation_id, 3))
        assert await reading.tables.apply({conversation_id: [event(4)]}) == {conversation_id: Applied(1, 0, None)}


async def test_a_timeline_that_is_ahead_of_its_head_is_an_error_and_no_rewind(
    conversation_id: str, server: Server
) -> None:
    async with Redis(port=server.port, password=server.password) as redis:
        reading = RedisReading(redis)
        await reading.tables.apply({conversation_id: [event(seq) for seq in range(1, 6)]})
        await redis.hset(redis_keys.head_key(conversation_id), redis_keys.HEAD_SEQ, "3")
        results = await reading.tables.apply({conversation_id: [event(4), event(5), event(6)]})
        assert "equal or smaller" in (results[conversation_id].error or "")
        held = await reading.find(conversation_id)
        assert held is not None
        assert [entry[0] for entry in held.timeline] == [1, 2, 3, 4, 5]


async def test_what_redis_cannot_take_just_now_is_nobodys_error(conversation_id: str, server: Server) -> None:
    async with Redis(port=server.port, password=server.password) as redis:
        tables = RedisTables(redis)
        await tables.apply({conversation_id: [event(1)]})
        await redis.config_set("maxmemory", "1")
        try:
            with pytest.raises(ResponseError) as caught:
                await tables.apply({conversation_id: [event(2)]})
            assert is_passing_reply(caught.value)
            with pytest.raises(ResponseError) as caught:
                await tables.advance_receipts({conversation_id: [receipt(str(uuid.uuid4()), 1, 1)]})
            assert is_passing_reply(caught.value)
            with pytest.raises(ResponseError) as caught:
                await tables.build_user(str(uuid.uuid4()), {conversation_id: Stay(1, None)})
            assert is_passing_reply(caught.value)
        finally:
            await redis.config_set("maxmemory", "0")
        assert await tables.apply({conversation_id: [event(2)]}) == {conversation_id: Applied(1, 0, None)}


@pytest.mark.parametrize("field", ["the whole", "one field"])
async def test_a_users_damaged_table_is_not_complete_and_is_built_anew(
    field: str, conversation_id: str, server: Server
) -> None:
    user_id, sound = str(uuid.uuid4()), str(uuid.uuid4())
    joins = [MembershipChange(name, conversation_id, 4) for name in (user_id, sound)]
    async with Redis(port=server.port, password=server.password) as redis:
        reading = RedisReading(redis)
        await reading.tables.build_user(sound, {})
        if field == "the whole":
            await redis.set(redis_keys.user_conversations_key(user_id), "what is none of ours")
        else:
            await reading.tables.build_user(user_id, {})
            await redis.hset(redis_keys.user_conversations_key(user_id), conversation_id, "what is none of ours")
        assert await reading.tables.note_memberships(joins) == [user_id]
        await reading.tables.build_user(user_id, {conversation_id: Stay(4, None)})
        assert await reading.find_user(user_id) == {conversation_id: Stay(4, None)}
        assert await reading.find_user(sound) == {conversation_id: Stay(4, None)}


async def test_a_conversations_damaged_receipts_are_no_others_error(conversation_id: str, server: Server) -> None:
    other, user_id = str(uuid.uuid4()), str(uuid.uuid4())
    async with Redis(port=server.port, password=server.password) as redis:
        tables = RedisTables(redis)
        await redis.set(redis_keys.receipts_key(conversation_id), "what is none of ours")
        advanced = await tables.advance_receipts({name: [receipt(user_id, 2, 1)] for name in (conversation_id, other)})
        assert advanced.news == 1
        assert list(advanced.errors) == [conversation_id]
        assert "WRONGTYPE" in advanced.errors[conversation_id]


def change(seq: int, message: TimelineEvent, *, text: str) -> TimelineEvent:
    """An edit of a message."""
    payload = json.dumps({"message_id": message.event_id, "text": text}).encode()
    return TimelineEvent(seq, "MessageEdited", str(uuid.UUID(int=seq)), payload, effects(message_id=message.event_id))


def sent(seq: int) -> TimelineEvent:
    """A message whose payload names it."""
    event_id = str(uuid.UUID(int=seq))
    return TimelineEvent(seq, "MessageSent", event_id, json.dumps({"message_id": event_id}).encode())


async def test_a_change_is_kept_beside_its_message(reading: Reading, conversation_id: str) -> None:
    two, three = sent(2), sent(3)
    first, second = change(4, two, text="a"), change(5, two, text="b")
    await reading.tables.apply({conversation_id: [event(1), two, three, first, second]})
    held = await reading.find(conversation_id)
    assert held is not None
    assert held.changes == {two.event_id: (5, second.payload)}
    assert held.last_change is None, "it is not the last message that was changed"
    last = change(6, three, text="c")
    await reading.tables.apply({conversation_id: [last]})
    held = await reading.find(conversation_id)
    assert held is not None
    assert held.last_change == last.payload
    await reading.tables.apply({conversation_id: [sent(7)]})
    held = await reading.find(conversation_id)
    assert held is not None
    assert held.last_change is None


async def test_changes_of_messages_that_the_timeline_holds_no_longer_are_dropped(
    reading: Reading, conversation_id: str
) -> None:
    count = 2 * redis_keys.TIMELINE_LENGTH + 1
    messages = [sent(seq) for seq in range(2, count + 2)]
    edits = [change(count + 1 + n, message, text="x") for n, message in enumerate(messages, start=1)]
    await reading.tables.apply({conversation_id: [event(1), *messages]})
    for start in range(0, count, 500):
        await reading.tables.apply({conversation_id: edits[start : start + 500]})
    held = await reading.find(conversation_id)
    assert held is not None
    in_timeline = {edit.seq for edit in edits} & {seq for seq, *_ in held.timeline}
    assert {seq for seq, _ in held.changes.values()} == in_timeline


@given(taken=steps)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
async def test_a_rebuild_makes_of_any_history_what_applying_makes(reading: Reading, taken: list[Step]) -> None:
    history = History(str(uuid.uuid4()), taken)
    rebuilt = History(str(uuid.uuid4()), taken)
    rebuilt.entries = history.entries
    events = events_of_entries(history.conversation_id, history.entries)
    half = len(events) // 2
    for batch in (events[:half], events[: half + 1], events[half:]):
        await reading.tables.apply({history.conversation_id: batch})
    assert await reading.tables.rebuild(rebuilt.snapshot())
    one, other = await reading.find(history.conversation_id), await reading.find(rebuilt.conversation_id)
    assert one is not None
    assert other is not None
    one.epoch = other.epoch
    assert one == other


def receipt(user_id: str, delivered_seq: int, read_seq: int) -> ReceiptChange:
    return ReceiptChange(user_id, delivered_seq, read_seq, str(uuid.uuid4()), b"%d:%d" % (delivered_seq, read_seq))


async def test_an_event_is_published_with_its_passage(reading: Reading, conversation_id: str) -> None:
    traceparent = f"00-{'ab' * 16}-{'cd' * 8}-01"
    by_kafka, otherwise = encode_origin(1_767_323_045_678, traceparent), NO_ORIGIN
    await reading.listen(conversation_id)
    events = [event(1)._replace(origin=by_kafka), event(2)._replace(origin=otherwise)]
    await reading.tables.apply({conversation_id: events})
    first, second = await reading.heard_passages(2)
    assert first is not None
    assert second is not None
    assert (first.appended_ms, first.traceparent) == (1_767_323_045_678, traceparent)
    assert (second.appended_ms, second.traceparent) == (None, None)
    assert first.applied_us == second.applied_us > 1_767_323_045_000_000, "one call, one time"


async def test_receipts_only_grow_and_only_news_are_published(reading: Reading, conversation_id: str) -> None:
    one, other = str(uuid.uuid4()), str(uuid.uuid4())
    await reading.tables.apply({conversation_id: [event(1)]})
    await reading.listen(conversation_id)
    late = receipt(one, 4, 3)
    assert (
        await reading.tables.advance_receipts({conversation_id: [receipt(one, 5, 2), late, receipt(other, 1, 0)]})
    ) == Advanced(3, {})
    again = [late, receipt(one, 5, 3), receipt(one, 1, 1)]
    assert await reading.tables.advance_receipts({conversation_id: again}) == Advanced(0, {})
    held = await reading.find(conversation_id)
    assert held is not None
    assert held.receipts == {one: Receipt(5, 3), other: Receipt(1, 0)}
    heard = await reading.heard(3)
    assert heard == [(0, "ReceiptAdvanced", payload) for payload in (b"5:2", b"4:3", b"1:0")]


async def test_a_rebuild_brings_receipts_back_and_rewinds_none(reading: Reading, conversation_id: str) -> None:
    one, other = str(uuid.uuid4()), str(uuid.uuid4())
    await reading.tables.advance_receipts({conversation_id: [receipt(one, 5, 1)]})
    stored = replace(snapshot(conversation_id, 4), receipts={one: Receipt(4, 3), other: Receipt(2, 2)})
    assert await reading.tables.rebuild(stored)
    held = await reading.find(conversation_id)
    assert held is not None
    assert held.receipts == {one: Receipt(5, 3), other: Receipt(2, 2)}
