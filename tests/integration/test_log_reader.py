"""The log reader on a real PostgreSQL: what it reads, and how it fails."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from schemas.redis_keys import Participation, Stay
from stream_apps.log_reader import LogReader, LogUnavailable, Membership
from tests.integration.servers import READER, Server, free_port, login, start_postgres, start_redis
from tests.integration.world import World, create_world


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Server, Server]]:
    with ExitStack() as stack:
        yield stack.enter_context(start_redis()), stack.enter_context(start_postgres())


@pytest.fixture
async def world(servers: tuple[Server, Server], tmp_path: Path) -> AsyncIterator[World]:
    async with create_world(*servers, tmp_path) as own:
        yield own


async def test_entries_are_read_in_seq_order_from_either_side(world: World) -> None:
    alice = await world.register()
    conversation_id = await world.create_conversation(alice)
    message_ids = await world.send(conversation_id, *"abcdef")
    entries = await world.log.read_entries(conversation_id, after_seq=2, limit=3)
    assert [(entry.seq, entry.event_id) for entry in entries] == list(zip((3, 4, 5), message_ids[1:4], strict=True))
    assert entries[0].event_type == "MessageSent"
    assert entries[0].payload.startswith(b'{"seq":3,')
    before = await world.log.read_entries_before(conversation_id, before_seq=6, limit=3)
    assert before == entries
    assert await world.log.read_entries(str(uuid.uuid4()), after_seq=0, limit=3) == []


async def test_a_snapshot_is_everything_of_one_moment(world: World) -> None:
    alice, bob = await world.register(), await world.register()
    conversation_id = await world.create_conversation(alice, bob, title="ünï")
    await world.send(conversation_id, "a", "b")
    snapshot = await world.log.read_snapshot(conversation_id, entries=2)
    assert snapshot is not None
    assert (snapshot.conversation_id, snapshot.seq, snapshot.title) == (conversation_id, 3, "ünï")
    assert snapshot.participants == {
        alice.user_id: Participation(1, None, "admin"),
        bob.user_id: Participation(1, None, "member"),
    }
    assert [entry.seq for entry in snapshot.entries] == [2, 3]
    assert snapshot.last_message == snapshot.entries[-1].payload
    assert await world.log.read_snapshot(str(uuid.uuid4()), entries=2) is None


async def test_a_snapshot_before_the_first_message_has_no_last_message(world: World) -> None:
    conversation_id = await world.create_conversation(await world.register(), title=None)
    snapshot = await world.log.read_snapshot(conversation_id, entries=10)
    assert snapshot is not None
    assert (snapshot.title, snapshot.last_message, len(snapshot.entries)) == (None, None, 1)


async def test_one_who_has_left_keeps_the_conversation_up_to_there(world: World) -> None:
    alice, bob = await world.register(), await world.register()
    conversation_id = await world.create_conversation(alice, bob)
    assert await world.log.find_membership(conversation_id, bob.user_id) == Membership(1, None, 1)
    assert await world.log.read_user_conversations(bob.user_id) == {conversation_id: Stay(1, None)}
    await world.leave(conversation_id, bob)
    await world.send(conversation_id, "behind his back")
    membership = await world.log.find_membership(conversation_id, bob.user_id)
    assert membership == Membership(1, 2, 3)
    assert membership.end_seq == 2
    assert await world.log.read_user_conversations(bob.user_id) == {conversation_id: Stay(1, 2)}
    details = await world.log.find_conversation(conversation_id)
    assert details is not None
    assert details.participants == {
        alice.user_id: Participation(1, None, "admin"),
        bob.user_id: Participation(1, 2, "member"),
    }
    assert await world.log.find_conversation(str(uuid.uuid4())) is None


async def test_the_latest_change_up_to_a_seq_is_found(world: World) -> None:
    alice = await world.register()
    conversation_id = await world.create_conversation(alice)
    one, other, third = await world.send(conversation_id, "one", "other", "third")
    await world.edit(conversation_id, one, "once")
    await world.edit(conversation_id, one, "twice")
    await world.delete(conversation_id, other)

    async def changes(up_to_seq: int) -> dict[str, int]:
        found = await world.log.read_changes(conversation_id, [one, other, third], after_seq=1, up_to_seq=up_to_seq)
        return {message_id: entry.seq for message_id, entry in found.items()}

    assert await changes(4) == {}
    assert await changes(5) == {one: 5}
    assert await changes(7) == {one: 6, other: 7}


async def test_it_opens_while_postgres_is_down_and_says_so_when_asked() -> None:
    async with LogReader({"host": "127.0.0.1", "port": free_port()}, timeout_seconds=0.3) as log:
        started = time.monotonic()
        for _ in range(5):
            with pytest.raises(LogUnavailable):
                await log.ping()
        assert time.monotonic() - started < 1.5, "only one caller waits, the others are told at once"


async def test_it_recovers_soon_after_postgres_comes_back(world: World, servers: tuple[Server, Server]) -> None:
    postgres = servers[1]
    async with LogReader(login(postgres, READER), timeout_seconds=0.5) as log:
        await log.ping()
        await asyncio.to_thread(postgres.stop)
        with pytest.raises(LogUnavailable):
            await log.ping()
        await asyncio.sleep(1)
        await asyncio.to_thread(postgres.start)
        started = time.monotonic()
        while True:
            try:
                await log.ping()
                break
            except LogUnavailable:
                assert time.monotonic() - started < 10
                await asyncio.sleep(0.05)
        assert time.monotonic() - started < 5


async def test_a_query_that_takes_too_long_is_given_up(world: World, servers: tuple[Server, Server]) -> None:
    conversation_id = await world.create_conversation(await world.register())
    async with LogReader(login(servers[1], READER), timeout_seconds=0.3) as log, world.database.transaction():
        await world.database.execute("LOCK TABLE conversation_log")
        with pytest.raises(LogUnavailable):
            await log.read_entries(conversation_id, after_seq=0, limit=1)
