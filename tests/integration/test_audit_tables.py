"""Audit on a real Redis and a real PostgreSQL: finds and repairs what was planted, heals a Redis that was lost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from schemas import redis_keys
from stream_apps.audit.auditor import Auditor
from stream_apps.audit.checker import Fault, Kind, Place
from stream_apps.audit.comparison import Comparison
from stream_apps.audit.full import FullPass, Report, Scope
from stream_apps.audit.healer import Healer
from stream_apps.audit.marker import Marker, Verdict
from stream_apps.audit.settings import AuditSettings
from stream_apps.audit.tables import TableReader
from stream_apps.audit.telemetry import AuditMetrics
from stream_apps.audit.topic import TopicReader
from stream_apps.backfill_run import Backfill, Pace
from stream_apps.log_reader import LogUnavailable
from stream_apps.log_scanner import LogScanner
from stream_apps.rebuilding import Rebuilder
from tests.integration.servers import READER, Server, free_port, login, start_postgres, start_redis
from tests.integration.test_backfill import everything, make_busy_conversation
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


async def check(world: World, scanner: LogScanner, *ids: str, repair: bool = False) -> Report:
    """A pass over some conversations, without Kafka."""
    full_pass = FullPass(scanner, TableReader(world.redis), Rebuilder(scanner, world.redis), confirm_seconds=0)
    return await full_pass.run(Scope(ids), None, repair=repair)


async def rewrite(redis: Redis, conversation_id: str, change: Callable[[list[dict[bytes, bytes]]], None]) -> None:
    """Replaces a timeline by a changed one, with the head as it was."""
    key = redis_keys.timeline_key(conversation_id)
    entries: Any = await redis.xrange(key)
    rows = [{b"seq": name, **fields} for name, fields in entries]
    change(rows)
    await redis.delete(key)
    for row in rows:
        fields: Any = {name: value for name, value in row.items() if name != b"seq"}
        await redis.xadd(key, fields, id=row[b"seq"])


def dropped(rows: list[dict[bytes, bytes]]) -> None:
    del rows[4]


def doubled(rows: list[dict[bytes, bytes]]) -> None:
    rows[5] = {**rows[4], b"seq": rows[5][b"seq"]}


def swapped(rows: list[dict[bytes, bytes]]) -> None:
    rows[4], rows[5] = {**rows[5], b"seq": rows[4][b"seq"]}, {**rows[4], b"seq": rows[5][b"seq"]}


def altered(rows: list[dict[bytes, bytes]]) -> None:
    rows[4][b"data"] = rows[4][b"data"].replace(b'"type"', b'"Type"')


def cut_off(rows: list[dict[bytes, bytes]]) -> None:
    del rows[-1]


def begun_late(rows: list[dict[bytes, bytes]]) -> None:
    del rows[0]


@pytest.mark.parametrize(
    ("plant", "kind"),
    [
        (dropped, Kind.GAP),
        (doubled, Kind.DUPLICATE),
        (swapped, Kind.REORDER),
        (altered, Kind.ALTERED),
        (cut_off, Kind.MISSING),
        (begun_late, Kind.MISSING),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_what_was_planted_in_a_timeline_is_found_and_repaired(
    world: World, scanner: LogScanner, plant: Callable[[list[dict[bytes, bytes]]], None], kind: Kind
) -> None:
    conversation_id, other = [await make_busy_conversation(world) for _ in range(2)]
    before = await everything(world)
    assert (await check(world, scanner, conversation_id, other)).faults == []
    await rewrite(world.redis, conversation_id, plant)
    report = await check(world, scanner, conversation_id, other, repair=True)
    assert {(fault.place, fault.kind, fault.conversation_id) for fault in report.faults} == {
        (Place.REDIS, kind, conversation_id)
    }
    assert (report.repaired, report.left) == (1, [])
    assert await everything(world) == before


async def test_an_entry_of_another_conversation_is_found_and_repaired(world: World, scanner: LogScanner) -> None:
    conversation_id, other = [await make_busy_conversation(world) for _ in range(2)]
    foreign: Any = await world.redis.xrange(redis_keys.timeline_key(other), min="5-0", max="5-0")

    def crossed(rows: list[dict[bytes, bytes]]) -> None:
        rows[4] = {**foreign[0][1], b"seq": rows[4][b"seq"]}

    await rewrite(world.redis, conversation_id, crossed)
    report = await check(world, scanner, conversation_id, other, repair=True)
    assert [(fault.kind, fault.seq) for fault in report.faults] == [(Kind.FOREIGN, 5)]
    assert report.left == []


async def damage_title(world: World, name: str) -> None:
    await world.redis.hset(redis_keys.head_key(name), "title", "another")


async def damage_participants(world: World, name: str) -> None:
    table: Any = await world.redis.hkeys(redis_keys.participants_key(name))
    await world.redis.hdel(redis_keys.participants_key(name), table[0])


async def damage_changes(world: World, name: str) -> None:
    await world.redis.delete(redis_keys.changes_key(name))


async def damage_receipts(world: World, name: str) -> None:
    await world.redis.delete(redis_keys.receipts_key(name))


async def damage_last_message(world: World, name: str) -> None:
    await world.redis.hdel(redis_keys.head_key(name), "last_message")


async def lose_the_head(world: World, name: str) -> None:
    await world.redis.delete(redis_keys.head_key(name))


async def replace_the_timeline_by_a_text(world: World, name: str) -> None:
    await world.redis.set(redis_keys.timeline_key(name), "no table")


async def replace_the_head_by_a_text(world: World, name: str) -> None:
    await world.redis.set(redis_keys.head_key(name), "no table")


async def forget_a_participant(world: World, name: str) -> None:
    user_id = world.participants[name][0].user_id
    await world.redis.hdel(redis_keys.user_conversations_key(user_id), name)


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        (damage_title, Kind.STATE),
        (damage_participants, Kind.STATE),
        (damage_changes, Kind.STATE),
        (damage_receipts, Kind.STATE),
        (damage_last_message, Kind.STATE),
        (forget_a_participant, Kind.STATE),
        (lose_the_head, Kind.MISSING),
        (replace_the_timeline_by_a_text, Kind.MISSING),
        (replace_the_head_by_a_text, Kind.MISSING),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_what_was_damaged_besides_is_found_and_repaired(
    world: World, scanner: LogScanner, damage: Callable[[World, str], Awaitable[None]], kind: Kind
) -> None:
    conversation_id, other = [await make_busy_conversation(world) for _ in range(2)]
    before = await everything(world)
    await damage(world, conversation_id)
    report = await check(world, scanner, conversation_id, other, repair=True)
    assert [(fault.place, fault.kind, fault.conversation_id) for fault in report.faults] == [
        (Place.REDIS, kind, conversation_id)
    ]
    assert report.left == []
    assert await everything(world) == before


async def test_a_table_of_a_conversation_that_postgres_does_not_know_is_found_and_removed(
    world: World, scanner: LogScanner
) -> None:
    unknown = "11111111-2222-4333-8444-555555555555"
    await world.redis.hset(redis_keys.head_key(unknown), mapping={"seq": 3, "epoch": "e"})
    full_pass = FullPass(scanner, TableReader(world.redis), Rebuilder(scanner, world.redis), confirm_seconds=0)
    report = await full_pass.run(Scope(), None, repair=True)
    assert (Place.REDIS, Kind.PHANTOM, unknown) in {(f.place, f.kind, f.conversation_id) for f in report.faults}
    assert report.left == []
    assert not await world.redis.exists(redis_keys.head_key(unknown))


async def test_a_hole_in_the_log_itself_is_found_and_no_rebuild_hides_it(world: World, scanner: LogScanner) -> None:
    alice = await world.register()
    conversation_id = await world.create_conversation(alice)
    await world.send(conversation_id, "a", "b", "c")
    delete = "DELETE FROM conversation_log WHERE conversation_id = %s AND seq = 3"
    await world.database.execute("SET session_replication_role = replica")  # as an operator with the wrong rights
    await world.database.execute(delete, (conversation_id,))
    report = await check(world, scanner, conversation_id, repair=True)
    assert (Place.POSTGRES, Kind.GAP) in {(fault.place, fault.kind) for fault in report.left}


# --- The marker ---


async def test_the_marker_tells_a_loss_from_a_step_back(world: World, scanner: LogScanner) -> None:
    now = await scanner.read_clock()
    marker, other = Marker(world.redis), Marker(world.redis)
    assert await marker.adopt() is Verdict.LOST
    await marker.begin(now)
    assert await other.adopt() is Verdict.UNFINISHED
    assert await marker.move(now, is_whole=True) is Verdict.OK
    assert await other.adopt() is Verdict.OK
    before: Any = await world.redis.hgetall(redis_keys.TABLES_MARKER)

    assert await marker.move(now + timedelta(seconds=10)) is Verdict.OK
    assert await other.move(now + timedelta(seconds=5)) is Verdict.OK, "another process is further; that is no loss"
    assert await marker.move(now + timedelta(seconds=11)) is Verdict.OK
    await world.redis.hset(redis_keys.TABLES_MARKER, mapping=before)
    assert await marker.move(now + timedelta(seconds=12)) is Verdict.REWOUND
    assert await marker.adopt() is Verdict.OK
    assert abs(marker.checked_until - now) < timedelta(milliseconds=1)
    await world.redis.flushall()
    assert await marker.move(now) is Verdict.LOST
    assert not await world.redis.exists(redis_keys.TABLES_MARKER)


# --- The program's parts ---


class Program:
    """Healer and auditor, looked with by hand."""

    def __init__(self, world: World, scanner: LogScanner, **settings: float) -> None:
        quick: dict[str, Any] = {
            "audit_settle_seconds": 0,
            "audit_confirm_seconds": 0,
            "audit_late_seconds": 0,
            "audit_phantom_seconds": 0,
            **settings,
        }
        own = AuditSettings(kafka_bootstrap=f"127.0.0.1:{free_port()}", **quick)
        self.registry = CollectorRegistry()
        metrics = AuditMetrics(self.registry)
        rebuilder = Rebuilder(scanner, world.redis)
        backfill = Backfill(scanner, rebuilder, pace=Pace(0), patience_seconds=0)
        comparison = Comparison(scanner, TableReader(world.redis))
        topic = TopicReader(own.kafka_bootstrap)
        self.auditor = Auditor(own, scanner, comparison, Rebuilder(scanner, world.redis), topic, metrics)
        self.healer = Healer(own, scanner, Marker(world.redis), rebuilder, backfill, metrics)
        self.looked_until: Any = None

    async def look(self) -> None:
        await self.healer.look(self.looked_until)
        while self.healer.is_healing:
            await asyncio.sleep(0.01)
        self.looked_until = await self.auditor.look(tables_are_whole=True)

    def count(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def auditing(world: World, scanner: LogScanner, **settings: float) -> AsyncIterator[Program]:
    program = Program(world, scanner, **settings)
    try:
        await program.look()
        yield program
    finally:
        await program.healer.close()
        await program.auditor.close()


async def test_a_flushed_redis_is_filled_although_nothing_happens(world: World, scanner: LogScanner) -> None:
    await make_busy_conversation(world)
    async with auditing(world, scanner) as program:
        before = await everything(world)
        await world.redis.flushall()
        await program.look()
        after = await everything(world)
        assert program.count("audit_heals_total", reason="lost") == 2, "the first start finds no marker either"
    for held in (before, after):
        held.pop(redis_keys.TABLES_MARKER)
    assert after == before


async def test_a_redis_that_was_taken_back_is_brought_forward_although_nothing_happens(
    world: World, scanner: LogScanner
) -> None:
    alice, bob = await world.register(), await world.register()
    conversation_id = await world.create_conversation(alice, bob)
    async with auditing(world, scanner) as program:
        await program.look()
        keys: Any = await world.redis.keys("*")
        backup = {key: await world.redis.dump(key) for key in keys}
        later = await world.create_conversation(bob)
        await world.send(conversation_id, "a", "b")
        await program.look()
        before = await everything(world)
        await world.redis.flushall()
        for key, value in backup.items():
            assert value is not None
            await world.redis.restore(key, 0, value)
        await program.look()
        after = await everything(world)
        assert program.count("audit_heals_total", reason="rewound") == 1
    for held in (before, after):
        held.pop(redis_keys.TABLES_MARKER)
    assert redis_keys.head_key(later) in after
    assert after == before


async def test_an_audit_that_starts_after_redis_was_taken_back_notices_too(world: World, scanner: LogScanner) -> None:
    alice = await world.register()
    conversation_id = await world.create_conversation(alice)
    async with auditing(world, scanner):
        pass
    await world.send(conversation_id, "a", "b", project=False)
    async with auditing(world, scanner) as program:
        assert program.count("audit_heals_total", reason="start") == 1
        assert await world.redis.hget(redis_keys.head_key(conversation_id), "seq") == b"3"


async def test_filling_that_was_interrupted_begins_again(world: World, scanner: LogScanner) -> None:
    await make_busy_conversation(world)
    marker = Marker(world.redis)
    before = await everything(world)
    await world.redis.flushall()
    await marker.begin(await scanner.read_clock())
    async with auditing(world, scanner):
        after = await everything(world)
    assert after[redis_keys.TABLES_MARKER][b"state"] == b"whole"
    assert {key: after.get(key) for key in before} == before


async def test_what_was_touched_is_compared_and_repaired(world: World, scanner: LogScanner) -> None:
    alice = await world.register()
    async with auditing(world, scanner) as program:
        conversation_id = await world.create_conversation(alice)
        await world.send(conversation_id, "a", "b", "c", "d", "e")
        before = await everything(world)
        await rewrite(world.redis, conversation_id, swapped)
        await program.look()
        assert program.count("audit_faults_total", place="redis", kind="reorder") == 2
        assert program.count("audit_repairs_total") == 1
        await program.look()
        assert program.count("audit_suspects") == 0 or await suspected_places(program) == {Place.KAFKA}
        after = await everything(world)
    for held in (before, after):
        held.pop(redis_keys.TABLES_MARKER)
    assert after == before


async def suspected_places(program: Program) -> set[Place]:
    faults: list[Fault] = program.auditor._suspects.faults()
    return {fault.place for fault in faults}


async def test_a_table_that_is_late_is_given_time_and_then_brought_forward(world: World, scanner: LogScanner) -> None:
    alice = await world.register()
    conversation_id = await world.create_conversation(alice)
    async with auditing(world, scanner, audit_late_seconds=0.5) as program:
        await world.send(conversation_id, "a", project=False)
        await program.look()
        assert await world.redis.hget(redis_keys.head_key(conversation_id), "seq") == b"1"
        assert program.count("audit_faults_total", place="redis", kind="missing") == 0
        await asyncio.sleep(0.6)
        await program.look()
        assert await world.redis.hget(redis_keys.head_key(conversation_id), "seq") == b"2"
        assert program.count("audit_faults_total", place="redis", kind="missing") == 1


async def test_a_late_table_that_comes_by_itself_is_no_fault(world: World, scanner: LogScanner) -> None:
    alice = await world.register()
    conversation_id = await world.create_conversation(alice)
    async with auditing(world, scanner, audit_late_seconds=0.2) as program:
        await world.send(conversation_id, "a", project=False)
        await program.look()
        await world.project(conversation_id)
        await asyncio.sleep(0.3)
        await program.look()
        assert program.count("audit_faults_total", place="redis", kind="missing") == 0
        assert program.count("audit_repairs_total") == 0


async def test_tables_are_not_compared_while_they_are_filled_but_afterwards(world: World, scanner: LogScanner) -> None:
    alice = await world.register()
    async with auditing(world, scanner) as program:
        conversation_id = await world.create_conversation(alice)
        await world.send(conversation_id, *"abcdef")
        await rewrite(world.redis, conversation_id, altered)
        await program.auditor.look(tables_are_whole=False)
        assert program.count("audit_repairs_total") == 0
        await program.auditor.look(tables_are_whole=True)
        assert program.count("audit_faults_total", place="redis", kind="altered") == 1
        assert program.count("audit_repairs_total") == 1


async def test_what_is_too_much_for_one_look_waits_for_the_next_ones(world: World, scanner: LogScanner) -> None:
    alice = await world.register()
    async with auditing(world, scanner, audit_look_entries=1) as program:
        ids = [await world.create_conversation(alice) for _ in range(6)]
        for conversation_id in ids:
            await world.send(conversation_id, *"abcdef")
            await world.redis.xdel(redis_keys.timeline_key(conversation_id), "4-0")
        repaired: list[float] = []
        while not repaired or repaired[-1] < 6:
            await program.look()
            repaired.append(program.count("audit_repairs_total"))
        assert len(repaired) > 1
        assert program.count("audit_faults_total", place="redis", kind="gap") == 6


async def test_a_repair_that_failed_is_made_up_for(world: World, scanner: LogScanner) -> None:
    alice = await world.register()
    async with auditing(world, scanner, audit_confirm_seconds=0.3) as program:
        conversation_id = await world.create_conversation(alice)
        await world.send(conversation_id, *"abcdef")
        await rewrite(world.redis, conversation_id, altered)
        await program.look()
        await asyncio.sleep(0.4)
        rebuild, program.auditor._rebuilder = program.auditor._rebuilder, Away()  # type: ignore[assignment]
        with pytest.raises(LogUnavailable):
            await program.look()
        program.auditor._rebuilder = rebuild
        assert program.count("audit_repairs_total") == 0
        await program.look()
        await asyncio.sleep(0.4)
        await program.look()
        assert program.count("audit_repairs_total") == 1


class Away:
    """A rebuilder while Postgres is away."""

    def forget_users(self) -> None: ...

    async def rebuild(self, ids: list[str], *, force: bool) -> None:
        raise LogUnavailable("away")


async def test_no_content_of_messages_is_told(world: World, scanner: LogScanner) -> None:
    conversation_id = await make_busy_conversation(world)
    await rewrite(world.redis, conversation_id, altered)
    await damage_title(world, conversation_id)
    report = await check(world, scanner, conversation_id)
    told = json.dumps([fault.detail for fault in report.faults])
    assert report.faults
    assert "another" not in told
    assert "a!" not in told
