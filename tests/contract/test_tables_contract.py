"""One behaviour of the tables, for the in-memory double and for the Lua scripts on a real Redis."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Protocol

import pytest
from redis.asyncio import Redis

from infra.local.stack import Stack
from schemas import redis_keys
from stream_apps.log_reader import ConversationSnapshot, LogEntry
from stream_apps.redis_tables.tables import Applied, Join, RedisTables, Tables, TimelineEvent, effects_of
from tests.fakes import InMemoryTables


@dataclass
class Held:
    """What the tables hold of a conversation, read back."""

    seq: int
    title: str | None
    last_message: bytes | None
    participants: dict[str, int]
    timeline: list[tuple[int, str, str, bytes]]
    epoch: str


class Reading(Protocol):
    """Reads the tables back, each implementation its own way."""

    tables: Tables

    async def find(self, conversation_id: str) -> Held | None: ...
    async def find_user(self, user_id: str) -> dict[str, int] | None: ...


class InMemoryReading:
    def __init__(self) -> None:
        self.memory = InMemoryTables()
        self.tables: Tables = self.memory

    async def find(self, conversation_id: str) -> Held | None:
        table = self.memory.conversations.get(conversation_id)
        if table is None:
            return None
        return Held(table.seq, table.title, table.last_message, table.participants, table.timeline, str(table.epoch))

    async def find_user(self, user_id: str) -> dict[str, int] | None:
        return self.memory.users.get(user_id)


class RedisReading:
    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.tables: Tables = RedisTables(redis)

    async def find(self, conversation_id: str) -> Held | None:
        head: Any = await self.redis.hgetall(redis_keys.head_key(conversation_id))
        if not head:
            return None
        participants: Any = await self.redis.hgetall(redis_keys.participants_key(conversation_id))
        entries: Any = await self.redis.xrange(redis_keys.timeline_key(conversation_id))
        return Held(
            int(head[b"seq"]),
            head[b"title"].decode() if b"title" in head else None,
            head.get(b"last_message"),
            {user.decode(): int(seq) for user, seq in participants.items()},
            [
                (int(name.split(b"-")[0]), e[b"type"].decode(), e[b"id"].decode(), e[b"data"])
                for name, e in entries
                if name.endswith(b"-0")
            ],
            head[b"epoch"].decode(),
        )

    async def find_user(self, user_id: str) -> dict[str, int] | None:
        table: Any = await self.redis.hgetall(redis_keys.user_conversations_key(user_id))
        if table.pop(redis_keys.USER_COMPLETE.encode(), None) is None:
            return None
        return {conversation_id.decode(): int(seq) for conversation_id, seq in table.items()}


@pytest.fixture(params=["in memory", "redis"])
async def reading(request: pytest.FixtureRequest) -> AsyncIterator[Reading]:
    if request.param == "in memory":
        yield InMemoryReading()
        return
    stack: Stack = request.getfixturevalue("stack")
    async with Redis(port=stack.ports.redis, password=stack.secrets.redis) as redis:
        yield RedisReading(redis)


@pytest.fixture
def conversation_id() -> str:
    return str(uuid.uuid4())


USERS = {str(uuid.uuid4()): 1, str(uuid.uuid4()): 1}


def event(seq: int, *, text: str = 'grüß "dich" \n 👋') -> TimelineEvent:
    payload = json.dumps({"seq": seq, "text": text}, ensure_ascii=False).encode()
    if seq == 1:
        return TimelineEvent(seq, "ConversationCreated", str(uuid.UUID(int=seq)), payload, effects_of("a tïtle", USERS))
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
    return ConversationSnapshot(conversation_id, seq, "a tïtle", USERS, entries[-1].payload, entries)


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


async def test_a_join_needs_a_complete_user_table(reading: Reading) -> None:
    user_id, one, other = (str(uuid.uuid4()) for _ in range(3))
    assert await reading.tables.join([Join(user_id, one, 1)]) == [user_id]
    assert await reading.find_user(user_id) is None
    await reading.tables.build_user(user_id, {one: 1})
    assert await reading.tables.join([Join(user_id, other, 4), Join(user_id, other, 2)]) == []
    assert await reading.find_user(user_id) == {one: 1, other: 4}


async def test_a_user_in_no_conversation_has_a_complete_table(reading: Reading) -> None:
    user_id = str(uuid.uuid4())
    await reading.tables.build_user(user_id, {})
    assert await reading.find_user(user_id) == {}


async def test_what_is_left_of_a_table_without_its_head_is_no_hindrance(conversation_id: str, stack: Stack) -> None:
    async with Redis(port=stack.ports.redis, password=stack.secrets.redis) as redis:
        reading = RedisReading(redis)
        await reading.tables.apply({conversation_id: [event(1), event(2), event(3)]})
        await redis.delete(redis_keys.head_key(conversation_id))
        assert await reading.tables.apply({conversation_id: [event(1), event(2)]}) == {
            conversation_id: Applied(2, 0, None)
        }
        held = await reading.find(conversation_id)
        assert held is not None
        assert [entry[0] for entry in held.timeline] == [1, 2]
