"""Whatever becomes of the records on their way, the Redis tables end as a fresh reading of Postgres makes them: on a
real Redis and a real PostgreSQL, by two workers at once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from schemas.redis_keys import TIMELINE_LENGTH, head_key, timeline_key
from stream_apps.base import is_passing
from stream_apps.parking import ParkingLot
from stream_apps.records import Record
from stream_apps.redis_tables.tables import RedisTables
from stream_apps.telemetry import TimelineMetrics
from stream_apps.timeline.agents import Timeline
from tests.contract.test_tables_contract import RedisReading
from tests.integration.servers import Server, start_postgres, start_redis
from tests.integration.world import World, create_world
from tests.unit.stream_apps.test_timeline import KeptDeadLetters, record_of

CONVERSATIONS = 3
KINDS = ("send", "send", "send", "edit", "delete", "title", "join", "leave")


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Server, Server]]:
    with ExitStack() as stack:
        yield stack.enter_context(start_redis()), stack.enter_context(start_postgres())


@pytest.fixture
async def world(servers: tuple[Server, Server], tmp_path: Path) -> AsyncIterator[World]:
    async with create_world(*servers, tmp_path) as own:
        yield own


async def happen(world: World, kinds: list[str]) -> list[str]:
    """A new conversation in which these things happen; the ids of it and its users."""
    alice, bob, guest = [await world.register() for _ in range(3)]
    conversation_id = await world.create_conversation(alice, bob, project=False)
    message_ids = await world.send(conversation_id, "the first", project=False)
    is_in = False
    for number, kind in enumerate(kinds):
        if kind == "send":
            message_ids += await world.send(conversation_id, f"ünï {number}", project=False)
        elif kind == "edit":
            await world.edit(conversation_id, message_ids[number % len(message_ids)], f"edited {number}", project=False)
        elif kind == "delete" and len(message_ids) > 1:
            await world.delete(conversation_id, message_ids.pop(), project=False)
        elif kind == "title":
            await world.change_title(conversation_id, f"title {number}", project=False)
        elif kind == "join" and not is_in:
            await world.join(conversation_id, guest, project=False)
            is_in = True
        elif kind == "leave" and is_in:
            await world.leave(conversation_id, guest, project=False)
            is_in = False
    return [conversation_id, alice.user_id, bob.user_id, guest.user_id]


class Worker:
    """A timeline app between real servers, and whoever attends to what it has parked."""

    def __init__(self, world: World, dead_letters: KeptDeadLetters) -> None:
        metrics = TimelineMetrics(CollectorRegistry())
        self.lot = ParkingLot(60, conversations=metrics.parked_conversations, is_passing=is_passing)
        self.timeline = Timeline(RedisTables(world.redis), world.log, dead_letters, self.lot, metrics)

    async def apply(self, records: list[Record]) -> None:
        """Returns when all of them are settled."""
        unsettled = await self.timeline.apply(records)
        async with asyncio.timeout(30):
            while not all(future.done() for future in unsettled):
                await asyncio.sleep(0.05)
                await self.lot.attend(self.timeline)


DAMAGES = ("", "", "", "forgets everything", "loses a head", "loses a timeline to somebody else")


async def damage(world: World, how: str, conversation_id: str) -> None:
    """What may become of Redis in between."""
    if how == "forgets everything":
        await world.redis.flushdb()
    elif how == "loses a head":
        await world.redis.delete(head_key(conversation_id))
    elif how == "loses a timeline to somebody else":
        await world.redis.delete(timeline_key(conversation_id))
        await world.redis.set(timeline_key(conversation_id), "what is none of ours")


async def make_records(world: World, draw: random.Random) -> tuple[list[str], list[str], list[Record]]:
    """Some conversations that exist now, their users, and their records: each conversation's in order, the
    conversations anyhow."""
    ids: list[str] = []
    users: list[str] = []
    queues: list[list[Record]] = []
    for _ in range(CONVERSATIONS):
        conversation_id, *participants = await happen(world, draw.choices(KINDS, k=draw.randint(0, 12)))
        ids.append(conversation_id)
        users += participants
        entries = await world.log.read_entries(conversation_id, after_seq=0, limit=100)
        queues.append([record_of(conversation_id, entry) for entry in entries])
    order = [name for name, queue in enumerate(queues) for _ in queue]
    draw.shuffle(order)
    return ids, users, [queues[name].pop(0) for name in order]


async def one_more(world: World, worker: Worker, conversation_id: str) -> None:
    """Another event of the conversation, by which damage is found that came after its last one."""
    seq = await world.last_seq(conversation_id)
    await world.send(conversation_id, "one more", project=False)
    (entry,) = await world.log.read_entries(conversation_id, after_seq=seq, limit=1)
    await worker.apply([record_of(conversation_id, entry)])


async def check(world: World, ids: list[str], users: list[str]) -> None:
    """The tables are what a fresh reading of Postgres makes of an empty Redis."""
    reading = RedisReading(world.redis)
    async with Redis(port=world.redis_server.port, password=world.redis_server.password, db=1) as empty:
        fresh = RedisReading(empty)
        for conversation_id in ids:
            snapshot = await world.log.read_snapshot(conversation_id, entries=TIMELINE_LENGTH)
            assert snapshot is not None
            await fresh.tables.rebuild(snapshot)
            held, expected = await reading.find(conversation_id), await fresh.find(conversation_id)
            assert held is not None
            assert expected is not None
            assert replace(held, epoch="") == replace(expected, epoch="")
    for user_id in users:
        stays = await world.log.read_user_conversations(user_id)
        assert (await reading.find_user(user_id) or {}) == stays


@pytest.mark.parametrize("seed", range(6))
async def test_any_mix_of_records_ends_as_a_fresh_reading_of_postgres(world: World, seed: int) -> None:
    """Redelivered in any batches, to two workers of which one should have stopped, while Redis loses what it has."""
    draw = random.Random(seed)
    ids, users, records = await make_records(world, draw)
    dead_letters = KeptDeadLetters()
    workers = [Worker(world, dead_letters) for _ in range(2)]
    end = 0
    while end < len(records):
        start = draw.randint(max(0, end - 20), end)
        end = min(len(records), end + draw.randint(1, 10))
        old_start = draw.randint(max(0, start - 20), start)
        await asyncio.gather(workers[0].apply(records[start:end]), workers[1].apply(records[old_start:end]))
        await damage(world, draw.choice(DAMAGES), draw.choice(ids))
    for conversation_id in ids:
        await one_more(world, workers[0], conversation_id)
    await workers[0].apply(records)
    await check(world, ids, users)
    assert dead_letters.kept == []
