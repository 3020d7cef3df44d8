"""Backfill on a real Redis and a real PostgreSQL: what it rebuilds, what it leaves alone, what it says."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from schemas import redis_keys
from stream_apps.backfill_run import Backfill, Pace, Progress, Selection
from stream_apps.log_scanner import LogScanner
from stream_apps.rebuilding import Rebuilder
from stream_apps.redis_tables.tables import RedisTables
from stream_apps.timeline.projection import events_of_entries
from tests.conftest import ROOT
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


@pytest.fixture
async def scanner(servers: tuple[Server, Server]) -> AsyncIterator[LogScanner]:
    async with LogScanner(login(servers[1], READER)) as own:
        yield own


def backfill(world: World, scanner: LogScanner, **options: Any) -> Backfill:
    known: dict[str, Any] = {"pace": Pace(0), "patience_seconds": 0, **options}
    return Backfill(scanner, Rebuilder(scanner, world.redis), **known)


async def everything(world: World) -> dict[str, Any]:
    """All that the tables hold, without the epochs and the passages of entries, which differ between lives."""
    held: dict[str, Any] = {}
    keys: Any = await world.redis.keys("*")
    for key in keys:
        if await world.redis.type(key) == b"stream":
            entries: Any = await world.redis.xrange(key)
            held[key.decode()] = [
                (entry_id, {name: value for name, value in fields.items() if name != b"passage"})
                for entry_id, fields in entries
            ]
        else:
            table = await world.redis.hgetall(key)
            table.pop(b"epoch", None)
            held[key.decode()] = table
    return held


async def make_busy_conversation(world: World) -> str:
    """One in which everything has happened that can."""
    alice, bob, carol = [await world.register() for _ in range(3)]
    conversation_id = await world.create_conversation(alice, bob, title="ünï")
    first, second, _ = await world.send(conversation_id, "a", "b", "c")
    await world.edit(conversation_id, first, "a!")
    await world.delete(conversation_id, second)
    await world.join(conversation_id, carol, role="admin")
    await world.leave(conversation_id, bob)
    await world.change_title(conversation_id, None)
    (last,) = await world.send(conversation_id, "d")
    await world.edit(conversation_id, last, "d!")
    await world.advance_receipt(conversation_id, alice, delivered_seq=5, read_seq=4)
    return conversation_id


async def test_what_was_lost_comes_back_as_it_was(world: World, scanner: LogScanner) -> None:
    ids = [await make_busy_conversation(world) for _ in range(3)]
    before = await everything(world)
    await world.redis.flushall()
    progress = await backfill(world, scanner).run(Selection())
    assert await everything(world) == before
    assert (progress.done.rebuilt, progress.conversations, progress.done.users) == (progress.total, progress.total, 9)
    assert progress.total >= len(ids)


async def test_tables_that_are_as_far_as_postgres_are_left_alone(world: World, scanner: LogScanner) -> None:
    conversation_id = await make_busy_conversation(world)
    epoch = await world.redis.hget(redis_keys.head_key(conversation_id), "epoch")
    progress = await backfill(world, scanner).run(Selection(ids=(conversation_id,)))
    assert (progress.done.current, progress.done.rebuilt) == (1, 0)
    assert await world.redis.hget(redis_keys.head_key(conversation_id), "epoch") == epoch


async def test_a_table_that_is_behind_is_brought_forward_and_its_newcomers_learn_of_it(
    world: World, scanner: LogScanner
) -> None:
    alice, bob = await world.register(), await world.register()
    conversation_id = await world.create_conversation(alice)
    other = await world.create_conversation(bob)
    await world.join(conversation_id, bob, project=False)
    await world.send(conversation_id, "a", project=False)
    progress = await backfill(world, scanner).run(Selection(ids=(conversation_id,)))
    assert progress.done.rebuilt == 1
    assert await world.redis.hget(redis_keys.head_key(conversation_id), "seq") == b"3"
    assert await world.redis.hgetall(redis_keys.user_conversations_key(bob.user_id)) == {
        b"complete": b"1",
        conversation_id.encode(): b"2:",
        other.encode(): b"1:",
    }


async def test_force_replaces_what_was_altered_although_it_is_as_far(world: World, scanner: LogScanner) -> None:
    conversation_id = await make_busy_conversation(world)
    before = await everything(world)
    await world.redis.delete(redis_keys.timeline_key(conversation_id), redis_keys.participants_key(conversation_id))
    await world.redis.hset(redis_keys.head_key(conversation_id), "title", "altered")
    untouched = await backfill(world, scanner).run(Selection(ids=(conversation_id,)))
    assert untouched.done.rebuilt == 0
    forced = await backfill(world, scanner).run(Selection(ids=(conversation_id,)), force=True)
    assert forced.done.rebuilt == 1
    assert await everything(world) == before


async def test_what_the_table_has_beyond_postgres_goes_only_when_it_lasts(world: World, scanner: LogScanner) -> None:
    alice = await world.register()
    conversation_id = await world.create_conversation(alice)
    await world.send(conversation_id, "a")
    before = await everything(world)
    entries = await world.log.read_entries(conversation_id, after_seq=1, limit=1)
    event = events_of_entries(conversation_id, entries)[0]
    await RedisTables(world.redis).apply({conversation_id: [event._replace(seq=3)]})
    forced = await backfill(world, scanner).run(Selection(ids=(conversation_id,)), force=True)
    assert forced.done.rebuilt == 1
    assert await everything(world) == before


async def test_a_table_that_seems_ahead_only_because_postgres_is_late_is_not_taken_back(
    world: World, scanner: LogScanner
) -> None:
    alice = await world.register()
    conversation_id = await world.create_conversation(alice)
    await world.send(conversation_id, "a")
    tables = RedisTables(world.redis)
    entries = await world.log.read_entries(conversation_id, after_seq=1, limit=1)
    # The next entry is in Redis before Postgres shows it.
    event = events_of_entries(conversation_id, entries)[0]._replace(seq=3)
    await tables.apply({conversation_id: [event]})
    running = asyncio.create_task(backfill(world, scanner).run(Selection(ids=(conversation_id,)), force=True))
    seen = set()
    await world.send(conversation_id, "b", project=False)
    while not running.done():
        seen.add(await world.redis.hget(redis_keys.head_key(conversation_id), "seq"))
        await asyncio.sleep(0.01)
    assert (await running).done.rebuilt == 1
    assert seen == {b"3"}


async def test_only_what_was_touched_in_the_span_is_looked_at(world: World, scanner: LogScanner) -> None:
    alice = await world.register()
    early = await world.create_conversation(alice)
    since = await scanner.read_clock()
    late = await world.create_conversation(alice)
    until = await scanner.read_clock()
    await world.create_conversation(alice)
    await world.redis.flushall()
    progress = await backfill(world, scanner).run(Selection(since=since, until=until))
    assert (progress.conversations, progress.done.rebuilt) == (1, 1)
    assert await world.redis.exists(redis_keys.head_key(late))
    assert not await world.redis.exists(redis_keys.head_key(early))


async def test_what_postgres_does_not_know_is_named(world: World, scanner: LogScanner) -> None:
    unknown = "11111111-2222-4333-8444-555555555555"
    for force in (False, True):
        progress = await backfill(world, scanner).run(Selection(ids=(unknown,)), force=force)
        assert progress.done.unknown == [unknown]


async def test_a_long_conversation_keeps_what_the_timeline_keeps(world: World, scanner: LogScanner) -> None:
    alice = await world.register()
    conversation_id = await world.create_conversation(alice)
    message_ids = await world.send(conversation_id, "the last message")
    for number in range(1005):
        await world.edit(conversation_id, message_ids[0], str(number), project=False)
    progress = await backfill(world, scanner).run(Selection(ids=(conversation_id,)))
    assert progress.done.entries == redis_keys.TIMELINE_LENGTH
    one = await world.log.read_snapshot(conversation_id, entries=redis_keys.TIMELINE_LENGTH)
    assert (await scanner.read_snapshots([conversation_id], entries=redis_keys.TIMELINE_LENGTH)) == {
        conversation_id: one
    }
    assert one is not None
    assert await world.redis.hget(redis_keys.head_key(conversation_id), "last_message") == one.last_message


async def test_a_run_reports_and_waits_for_redis(world: World, scanner: LogScanner) -> None:
    alice = await world.register()
    for _ in range(3):
        await world.create_conversation(alice, project=False)
    reports: list[Progress] = []
    run = backfill(world, scanner, patience_seconds=30, report=reports.append)
    await asyncio.to_thread(world.redis_server.stop)
    running = asyncio.create_task(run.run(Selection()))
    await asyncio.sleep(0.5)
    assert not running.done()
    await asyncio.to_thread(world.redis_server.start)
    progress = await running
    assert progress.conversations == progress.total == progress.done.rebuilt
    assert reports
    assert f"{progress.total} of {progress.total} conversations" in progress.describe()


def test_a_rate_limit_spreads_the_entries() -> None:
    now = 100.0
    pace = Pace(1000, clock=lambda: now)
    assert pace.seconds_to_wait(500) == pytest.approx(0.5)
    assert pace.seconds_to_wait(500) == pytest.approx(1.0)
    now += 5
    assert pace.seconds_to_wait(100) == pytest.approx(0.1)
    assert Pace(0).seconds_to_wait(10**9) == 0


async def run_command(world: World, *arguments: str, **variables: str) -> tuple[int, str, str]:
    """`python -m stream_apps.backfill` as an operator would run it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "stream_apps.backfill",
        *arguments,
        cwd=ROOT,
        env={"PATH": os.defpath, **world.delivery_environment(), **variables},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()


async def test_the_command_rebuilds_and_its_exit_status_tells(world: World) -> None:
    conversation_id = await make_busy_conversation(world)
    await world.redis.flushall()
    status, output, _ = await run_command(world, "--all", "--rate", "100000")
    assert (status, " rebuilt" in output) == (0, True)
    status, output, _ = await run_command(world, "--conversation", conversation_id, "--force", "--json")
    assert status == 0
    assert json.loads(output)["rebuilt"] == 1
    status, _, errors = await run_command(world, "--conversation", conversation_id.replace("-", "")[:8])
    assert (status, "no conversation's id" in errors) == (2, True)
    status, _, errors = await run_command(world, "--since", "yesterday")
    assert (status, "no time" in errors) == (2, True)
    assert (await run_command(world))[0] == 2
    status, _, errors = await run_command(world, "--conversation", "11111111-2222-4333-8444-555555555555")
    assert (status, "not in Postgres" in errors) == (1, True)
    since = datetime.now(UTC).isoformat()
    assert (await run_command(world, "--since", since))[0] == 0
    away = str(free_port())
    status, _, errors = await run_command(world, "--all", "--patience", "0", CHAT4ALL_REDIS_PORT=away)
    assert (status, "run the command again" in errors) == (3, True)
