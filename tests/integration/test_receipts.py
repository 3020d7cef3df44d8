"""Receipts on a real PostgreSQL: maxima that only grow, and what leaves through the outbox."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from ingest_api.group_commit import GroupCommit, Limits
from ingest_api.receipts.commands import ADVANCE_RECEIPTS, ReceiptWriter
from ingest_api.receipts.model import HeldReceipt, NewReceipt
from ingest_api.telemetry import trace_context
from schemas.events import parse_receipt
from tests.chat_client import User
from tests.integration.desk import Desk, connect_to, open_desk
from tests.integration.servers import Server, start_postgres


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with start_postgres() as own:
        yield own


@pytest.fixture
async def desk(server: Server, tmp_path: Path) -> AsyncIterator[Desk]:
    async with open_desk(server, tmp_path) as own:
        yield own


@asynccontextmanager
async def copied_outbox(desk: Desk) -> AsyncIterator[None]:
    """Keeps a copy of every outbox row in a table of its own: the outbox is empty again when one looks."""
    await desk.database.execute(
        """
        CREATE TABLE emitted AS TABLE outbox WITH NO DATA;
        CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
        $$ BEGIN INSERT INTO emitted SELECT NEW.*; RETURN NEW; END $$;
        CREATE TRIGGER keep AFTER INSERT ON outbox FOR EACH ROW EXECUTE FUNCTION keep()
        """
    )
    try:
        yield
    finally:
        await desk.database.execute("DROP FUNCTION keep CASCADE; DROP TABLE emitted")


async def test_a_receipt_only_grows_and_only_an_advance_is_told(desk: Desk) -> None:
    alice = await desk.register()
    conversation_id = await desk.create_conversation(alice)
    for _ in range(9):
        await desk.send(alice, conversation_id)
    path = f"/v1/conversations/{conversation_id}/receipt"
    async with copied_outbox(desk):
        for asked, held in [
            ({}, (0, 0)),
            ({"delivered_seq": 0}, (0, 0)),
            ({"delivered_seq": 4}, (4, 0)),
            ({"read_seq": 3}, (4, 3)),
            ({"read_seq": 6}, (6, 6)),
            ({"delivered_seq": 5, "read_seq": 2}, (6, 6)),
            ({"delivered_seq": 2, "read_seq": 10}, (10, 10)),
        ]:
            answer = await desk.ask(alice, "PUT", path, asked)
            assert (answer.status_code, answer.json()) == (200, {"delivered_seq": held[0], "read_seq": held[1]})
        beyond = await desk.ask(alice, "PUT", path, {"delivered_seq": 11})
        assert (beyond.status_code, beyond.json()["last_seq"]) == (422, 10)
        rows = await desk.rows(
            "SELECT aggregatetype, aggregateid, type, seq, id::text, payload FROM emitted ORDER BY created_at"
        )
    assert {row[:4] for row in rows} == {("receipt", f"conversation:{conversation_id}", "ReceiptAdvanced", None)}
    events = [parse_receipt(row[5]) for row in rows]
    assert [(event.delivered_seq, event.read_seq) for event in events] == [(4, 0), (4, 3), (6, 6), (10, 10)]
    assert [str(event.event_id) for event in events] == [row[4] for row in rows]
    assert {(str(event.conversation_id), str(event.user_id)) for event in events} == {(conversation_id, alice.user_id)}
    assert await desk.rows("SELECT count(*) FROM outbox") == [(0,)]
    assert len(await desk.entries(conversation_id)) == 10


def receipt(conversation_id: str, user: User, delivered: int | None, read: int | None = None) -> NewReceipt:
    return NewReceipt(conversation_id, user.user_id, delivered, read, trace_context(None))


@asynccontextmanager
async def receipt_writer(desk: Desk, connections: int = 2) -> AsyncIterator[ReceiptWriter]:
    writer = GroupCommit(connect_to(desk.server), ADVANCE_RECEIPTS, Limits(connections, 256, 50_000, 20.0))
    writer.start()
    try:
        yield writer
    finally:
        await writer.close()


async def test_one_call_holds_many_receipts_of_one_user_and_each_refusal_stands_alone(desk: Desk) -> None:
    alice, mallory = await desk.register(), await desk.register()
    conversation_id = await desk.create_conversation(alice)
    for _ in range(3):
        await desk.send(alice, conversation_id)
    async with receipt_writer(desk, connections=1) as writer, copied_outbox(desk):
        results = await writer.write(
            [
                receipt(conversation_id, alice, 2),
                receipt(conversation_id, mallory, 1),
                receipt(conversation_id, alice, None, 1),
                receipt(conversation_id, alice, 99),
                receipt(str(uuid.uuid4()), alice, 1),
            ]
        )
        assert await desk.rows("SELECT count(*) FROM emitted") == [(1,)]
    assert [result if isinstance(result, HeldReceipt) else result.status for result in results] == [
        HeldReceipt(delivered_seq=2, read_seq=1),
        404,
        HeldReceipt(delivered_seq=2, read_seq=1),
        422,
        404,
    ]


async def test_random_load_of_three_processes_never_deadlocks_and_keeps_the_maxima(desk: Desk) -> None:
    rng = random.Random(11)
    users = [await desk.register() for _ in range(5)]
    ids = [await desk.create_conversation(*users) for _ in range(40)]
    for conversation_id in ids:
        await desk.database.execute(
            "UPDATE conversations SET last_seq = 50 WHERE conversation_id = %s", (conversation_id,)
        )
    asked = [receipt(rng.choice(ids), rng.choice(users), rng.randint(1, 50), rng.randint(0, 50)) for _ in range(4000)]
    deadlocks = "SELECT sum(deadlocks) FROM pg_stat_database"
    before = await desk.rows(deadlocks)
    async with AsyncExitStack() as stack:
        writers = [await stack.enter_async_context(receipt_writer(desk)) for _ in range(3)]
        units = [asked[n : n + 20] for n in range(0, len(asked), 20)]
        results = await asyncio.gather(*(writers[n % 3].write(unit) for n, unit in enumerate(units)))
    assert all(isinstance(result, HeldReceipt) for unit in results for result in unit)
    assert await desk.rows(deadlocks) == before
    expected: dict[tuple[str, str], tuple[int, int]] = {}
    for one in asked:
        delivered, read = expected.get((one.conversation_id, one.user_id), (0, 0))
        both = (one.delivered_seq or 0, one.read_seq or 0)
        expected[one.conversation_id, one.user_id] = (max(delivered, *both), max(read, both[1]))
    held = await desk.rows(
        "SELECT conversation_id::text, user_id::text, delivered_seq, read_seq FROM receipts"
        " WHERE conversation_id::text = ANY (%s)",
        ids,
    )
    assert {(row[0], row[1]): (row[2], row[3]) for row in held} == expected
