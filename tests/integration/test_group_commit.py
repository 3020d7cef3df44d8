"""Group commit on a real PostgreSQL: nothing is half done, nothing of unknown outcome is called stored, nobody waits
for ever."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest

from ingest_api.errors import ConversationNotFound, DatabaseUnavailable
from ingest_api.group_commit import GroupCommit, Limits, OutcomeUnknown, WriterSaturated
from ingest_api.log_writer import CHANGE_CONVERSATIONS, Appended, EventIdTaken, NewEntry, new_entry
from ingest_api.telemetry import trace_context
from schemas.problems import ProblemError
from tests.chat_client import User
from tests.integration.desk import Desk, connect_to, open_desk
from tests.integration.servers import Server, login, start_postgres


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with start_postgres() as own:
        yield own


@pytest.fixture
async def desk(server: Server, tmp_path: Path) -> AsyncIterator[Desk]:
    async with open_desk(server, tmp_path) as own:
        yield own


def message(conversation_id: str, actor: User, text: str = "hi", *, message_id: str | None = None) -> NewEntry:
    message_id = message_id or str(uuid.uuid4())
    return new_entry(
        event_id=message_id,
        type="MessageSent",
        conversation_id=conversation_id,
        actor_id=actor.user_id,
        traceparent=trace_context(None),
        message_id=message_id,
        body={"type": "text", "text": text},
    )


def deletion(conversation_id: str, actor: User, message_id: str) -> NewEntry:
    return new_entry(
        event_id=str(uuid.uuid4()),
        type="MessageDeleted",
        conversation_id=conversation_id,
        actor_id=actor.user_id,
        traceparent=trace_context(None),
        message_id=message_id,
    )


async def seqs(desk: Desk, conversation_id: str) -> list[int]:
    return [row[0] for row in await desk.entries(conversation_id)]


@asynccontextmanager
async def commits_that_wait(desk: Desk) -> AsyncIterator[None]:
    """Every commit waits for a standby that does not exist, until its wait is ended."""
    await desk.database.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    await desk.database.execute("SELECT pg_reload_conf()")
    await desk.database.execute("SELECT pg_sleep(0.3)")
    try:
        yield
    finally:
        await desk.database.execute("ALTER SYSTEM RESET synchronous_standby_names")
        await desk.database.execute("SELECT pg_reload_conf()")
        await desk.database.execute("SELECT pg_sleep(0.3)")


async def end_wait(desk: Desk, function: str) -> None:
    """Ends the wait of the commit that waits: its statement is cancelled, or its backend terminated."""
    waiting = "(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND usename = 'chat_api'"
    async with asyncio.timeout(10):
        while not await desk.rows(f"SELECT {function}" + waiting):
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("function", ["pg_cancel_backend", "pg_terminate_backend"])
async def test_a_commit_whose_wait_is_ended_is_never_called_stored(desk: Desk, function: str) -> None:
    alice = await desk.register()
    conversation_id = await desk.create_conversation(alice)
    entry = message(conversation_id, alice)
    async with desk.writer(connections=1) as writer:
        async with commits_that_wait(desk):
            waiting = asyncio.create_task(writer.append(entry))
            await end_wait(desk, function)
            with pytest.raises(OutcomeUnknown):
                await waiting
        again = await writer.append(entry)
        assert (again.seq, again.is_replay) == (2, True)


async def test_a_commit_that_takes_too_long_is_never_called_stored(desk: Desk) -> None:
    alice = await desk.register()
    conversation_id = await desk.create_conversation(alice)
    entry = message(conversation_id, alice)
    async with desk.writer(connections=1, timeout_seconds=0.5) as writer:
        async with commits_that_wait(desk):
            with pytest.raises(OutcomeUnknown):
                await writer.append(entry)
        assert (await writer.append(entry)).seq == 2


async def test_a_connection_that_ended_while_it_was_idle_costs_nobody_their_answer(desk: Desk) -> None:
    alice = await desk.register()
    conversation_id = await desk.create_conversation(alice)
    async with desk.writer(connections=1) as writer:
        assert (await writer.append(message(conversation_id, alice))).seq == 2
        assert await desk.rows(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'chat_api'"
        )
        assert (await writer.append(message(conversation_id, alice))).seq == 3


@asynccontextmanager
async def locked(desk: Desk, conversation_id: str) -> AsyncIterator[None]:
    """Another transaction holds the conversation's row."""
    async with await psycopg.AsyncConnection.connect(**login(desk.server)) as blocker:
        await blocker.execute("SELECT FROM conversations WHERE conversation_id = %s FOR UPDATE", (conversation_id,))
        yield
        await blocker.rollback()


async def blocked(desk: Desk) -> None:
    """Returns when a statement waits for a lock."""
    async with asyncio.timeout(10):
        while not await desk.rows("SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"):
            await asyncio.sleep(0.02)


@asynccontextmanager
async def trigger_on_log(desk: Desk, body: str, *, deferred: bool = False) -> AsyncIterator[None]:
    await desk.database.execute(
        f"CREATE FUNCTION disturb() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN NEW; END $$".encode()
    )
    kind, when = ("CONSTRAINT TRIGGER", "DEFERRABLE INITIALLY DEFERRED") if deferred else ("TRIGGER", "")
    event = "AFTER INSERT ON conversation_log"
    await desk.database.execute(
        f"CREATE {kind} disturb {event} {when} FOR EACH ROW EXECUTE FUNCTION disturb()".encode()
    )
    try:
        yield
    finally:
        await desk.database.execute("DROP FUNCTION disturb CASCADE")


async def test_a_warning_makes_the_outcome_unknown(desk: Desk) -> None:
    alice = await desk.register()
    conversation_id = await desk.create_conversation(alice)
    entry = message(conversation_id, alice)
    async with desk.writer(connections=1) as writer:
        async with trigger_on_log(desk, "RAISE WARNING 'a warning';"):
            with pytest.raises(OutcomeUnknown, match="a warning"):
                await writer.append(entry)
        assert (await writer.append(entry)).is_replay


@pytest.mark.parametrize("deferred", [False, True], ids=["at the insert", "at the commit"])
async def test_an_entry_that_postgres_refuses_fails_alone(desk: Desk, deferred: bool) -> None:
    alice = await desk.register()
    conversation_id = await desk.create_conversation(alice)
    entries = [message(conversation_id, alice, "poison" if n in {7, 31} else str(n)) for n in range(40)]
    poison = "IF NEW.payload LIKE '%poison%' THEN RAISE EXCEPTION 'poison'; END IF;"
    async with trigger_on_log(desk, poison, deferred=deferred), desk.writer(connections=1) as writer:
        results = await writer.write(entries)
        assert [n for n, result in enumerate(results) if isinstance(result, DatabaseUnavailable)] == [7, 31]
        assert not any(isinstance(result, OutcomeUnknown) for result in results)
    placed = [result.seq for result in results if isinstance(result, Appended)]
    assert placed == list(range(2, 40))
    assert await seqs(desk, conversation_id) == list(range(1, 40))


async def test_the_queue_counts_entries_and_a_request_cancelled_in_it_goes_unwritten(desk: Desk) -> None:
    alice = await desk.register()
    busy, conversation_id = await desk.create_conversation(alice), await desk.create_conversation(alice)
    async with desk.writer(connections=1, queue_size=100) as writer:
        async with locked(desk, busy):
            waiting = [asyncio.create_task(writer.append(message(busy, alice)))]
            await blocked(desk)
            units = [[message(conversation_id, alice, str(size)) for _ in range(size)] for size in (60, 40, 41)]
            others = [asyncio.create_task(writer.write(units[0]))]
            await asyncio.sleep(0)
            with pytest.raises(WriterSaturated):
                await writer.write(units[2])
            others.append(asyncio.create_task(writer.write(units[1])))
            await asyncio.sleep(0)
            others[0].cancel()
        assert [place.seq for place in await asyncio.gather(*waiting)] == [2]
        assert [result.seq for result in await others[1] if isinstance(result, Appended)] == list(range(2, 42))
    assert await seqs(desk, conversation_id) == list(range(1, 42))


async def test_a_request_cancelled_while_it_is_committed_is_stored_whole(desk: Desk) -> None:
    alice = await desk.register()
    conversation_id = await desk.create_conversation(alice)
    unit = [message(conversation_id, alice, str(n)) for n in range(50)]
    async with desk.writer(connections=1) as writer:
        async with locked(desk, conversation_id):
            task = asyncio.create_task(writer.write(unit))
            await blocked(desk)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        again = await writer.write(unit)
    assert [(r.seq, r.is_replay) for r in again if isinstance(r, Appended)] == [(n, True) for n in range(2, 52)]


async def test_closing_commits_what_waits_and_takes_no_more(desk: Desk) -> None:
    alice = await desk.register()
    conversation_id = await desk.create_conversation(alice)
    async with desk.writer() as writer:
        tasks = [asyncio.create_task(writer.append(message(conversation_id, alice))) for _ in range(300)]
        await asyncio.sleep(0)
    assert sorted(place.seq for place in await asyncio.gather(*tasks)) == list(range(2, 302))
    with pytest.raises(WriterSaturated):
        await writer.append(message(conversation_id, alice))


async def test_an_unreachable_database_stores_nothing_and_says_so(desk: Desk) -> None:
    async def connect() -> psycopg.AsyncConnection[tuple[object, ...]]:
        return await psycopg.AsyncConnection.connect(host="127.0.0.1", port=1, connect_timeout=2)

    writer = GroupCommit(connect, CHANGE_CONVERSATIONS, Limits(1, 16, 16, 5.0))
    writer.start()
    with pytest.raises(DatabaseUnavailable, match="nothing was stored"):
        await writer.write_one(message(str(uuid.uuid4()), User(str(uuid.uuid4()), "x", "x")))
    await writer.close()


async def test_one_id_a_hundred_times_over_two_writers_is_one_message(desk: Desk) -> None:
    alice = await desk.register()
    one, other = await desk.create_conversation(alice), await desk.create_conversation(alice)
    async with desk.writer() as left, desk.writer(batch_size=3) as right:
        entry = message(one, alice)
        places = await asyncio.gather(*((left, right)[n % 2].append(entry) for n in range(100)))
        assert {place.seq for place in places} == {2}
        assert sum(not place.is_replay for place in places) == 1
        for taken in (
            message(one, alice, "other content", message_id=entry.event_id),
            message(other, alice, message_id=entry.event_id),
        ):
            with pytest.raises(EventIdTaken):
                await left.append(taken)
    assert await seqs(desk, one) == [1, 2]
    assert await seqs(desk, other) == [1]


async def test_a_message_deleted_many_times_at_once_is_deleted_once(desk: Desk) -> None:
    alice = await desk.register()
    conversation_id = await desk.create_conversation(alice)
    async with desk.writer() as left, desk.writer() as right:
        sent = message(conversation_id, alice)
        results = await left.write([sent, deletion(conversation_id, alice, sent.event_id)])
        assert [result.seq for result in results if isinstance(result, Appended)] == [2, 3]
        other = await desk.send(alice, conversation_id)
        places = await asyncio.gather(
            *((left, right)[n % 2].append(deletion(conversation_id, alice, other)) for n in range(60))
        )
    assert {place.seq for place in places} == {5}
    assert sum(not place.is_replay for place in places) == 1


def random_entry(rng: random.Random, ids: list[str], users: list[User], sent: list[NewEntry]) -> NewEntry:
    if sent and rng.random() < 0.3:
        target = rng.choice(sent)
        if rng.random() < 0.3:
            return target  # a retry
        actor = rng.choice(users)
        return deletion(target.conversation_id, actor, target.event_id)
    entry = message(rng.choice(ids), rng.choice(users))
    sent.append(entry)
    return entry


async def test_random_load_of_three_writers_keeps_every_conversation_dense(desk: Desk) -> None:
    rng = random.Random(7)
    users = [await desk.register() for _ in range(3)]
    ids = [await desk.create_conversation(*users[:2]) for _ in range(200)]
    sent: list[NewEntry] = []
    outcomes: Counter[str] = Counter()
    deadlocks = "SELECT sum(deadlocks) FROM pg_stat_database"
    before = await desk.rows(deadlocks)
    changes = GroupCommit(connect_to(desk.server), CHANGE_CONVERSATIONS, Limits(2, 16, 10_000, 20.0))
    changes.start()

    async with desk.writer() as one, desk.writer(batch_size=64) as two, desk.writer(connections=1) as three:

        async def client(writer: GroupCommit[NewEntry, Appended]) -> None:
            for _ in range(12):
                unit = [random_entry(rng, ids, users, sent) for _ in range(rng.randint(1, 12))]
                for result in await writer.write(unit):
                    outcomes[type(result).__name__] += 1

        async def retitle() -> None:
            for _ in range(12):
                entry = new_entry(
                    event_id=str(uuid.uuid4()),
                    type="TitleChanged",
                    conversation_id=rng.choice(ids),
                    actor_id=users[0].user_id,
                    traceparent=trace_context(None),
                    title="x",
                )
                await changes.write_one(entry)

        await asyncio.gather(*(client(writer) for writer in (one, two, three) for _ in range(12)), *(
            retitle() for _ in range(16)
        ))  # fmt: skip
    await changes.close()
    assert set(outcomes) <= {"Appended", "ConversationNotFound", "NotAllowed", "MessageNotFound"}
    assert outcomes["Appended"] > 500
    assert await desk.rows(deadlocks) == before
    assert (
        await desk.rows(
            "SELECT conversation_id FROM conversation_log JOIN conversations USING (conversation_id)"
            " GROUP BY conversation_id, last_seq HAVING count(*) <> max(seq) OR max(seq) <> last_seq OR min(seq) <> 1"
        )
        == []
    )
    assert await desk.rows("SELECT count(*) FROM outbox") == [(0,)]


async def test_a_former_participant_is_told_nothing(desk: Desk) -> None:
    alice, bob = await desk.register(), await desk.register()
    conversation_id = await desk.create_conversation(alice, bob)
    async with desk.writer() as writer:
        sent = message(conversation_id, bob)
        await writer.append(sent)
        await desk.ask(bob, "DELETE", f"/v1/conversations/{conversation_id}/participants/{bob.user_id}")
        results: list[Appended | ProblemError] = await writer.write(
            [message(conversation_id, bob), deletion(conversation_id, bob, sent.event_id), sent]
        )
    assert [type(result) for result in results] == [ConversationNotFound, ConversationNotFound, Appended]
