"""The log writer and its SQL function on a real PostgreSQL: who gets which seq, and what is refused."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from prometheus_client import CollectorRegistry
from psycopg.rows import TupleRow
from sqlalchemy import create_engine

from infra.local.stack import Stack
from ingest_api.database import create_engine as create_async_engine
from ingest_api.database import engine_url, metadata
from ingest_api.errors import ConversationNotFound
from ingest_api.health import find_obstacles
from ingest_api.log_writer import (
    EventIdTaken,
    LogWriter,
    NewEntry,
    OutcomeUnknown,
    UnknownReply,
    WriterSaturated,
    new_entry,
)
from ingest_api.settings import DatabaseSettings
from ingest_api.telemetry import WriterMetrics, trace_context
from tests.chat_client import ChatClient, User


def login(stack: Stack, role: str) -> dict[str, Any]:
    passwords = {
        "chat_owner": stack.secrets.database_owner,
        "chat_api": stack.secrets.database_api,
        "chat_cdc": stack.secrets.database_cdc,
        "chat_reader": stack.secrets.database_reader,
    }
    return {
        "host": "127.0.0.1",
        "port": stack.ports.postgres,
        "dbname": "chat4all",
        "user": role,
        "password": passwords[role],
    }


def message(
    conversation_id: str, actor: User, text: str = "hi", *, message_id: str | None = None, reply_to: str | None = None
) -> NewEntry:
    return new_entry(
        event_id=message_id or str(uuid.uuid4()),
        type="MessageSent",
        conversation_id=conversation_id,
        actor_id=actor.user_id,
        traceparent=trace_context(None),
        reply_to=reply_to,
        body={"type": "text", "text": text},
    )


@asynccontextmanager
async def running_writer(stack: Stack, **settings: Any) -> AsyncIterator[LogWriter]:
    async def connect() -> psycopg.AsyncConnection[TupleRow]:
        return await psycopg.AsyncConnection.connect(**login(stack, "chat_api"), autocommit=True)

    arguments: dict[str, Any] = {
        "connections": 2,
        "batch_size": 256,
        "queue_size": 5000,
        "timeout_seconds": 10.0,
        "metrics": WriterMetrics(CollectorRegistry()),
        **settings,
    }
    writer = LogWriter(connect, **arguments)
    writer.start()
    try:
        yield writer
    finally:
        await writer.close()


async def test_text_is_stored_as_it_was_written(stack: Stack, client: ChatClient) -> None:
    alice = await client.register("alice")
    conversation_id = await client.create_conversation(alice)
    written = [
        *("NULL", '"', "\\", '\\"', "{},{}", "a,b", " ", "\t\r\n", "it's", "\u2028 \U0001f600 é", '\\\\""', "$1 %s"),
        "".join(chr(code) for code in range(1, 0x800)),
    ]
    async with running_writer(stack) as writer:
        await asyncio.gather(*(writer.append(message(conversation_id, alice, text)) for text in written))
    async with await psycopg.AsyncConnection.connect(**login(stack, "chat_reader")) as connection:
        cursor = await connection.execute(
            "SELECT payload::jsonb -> 'body' ->> 'text' FROM conversation_log WHERE conversation_id = %s AND seq > 1",
            (conversation_id,),
        )
        stored = [row[0] for row in await cursor.fetchall()]
    assert sorted(stored) == sorted(written)


async def seqs_in(stack: Stack, conversation_id: str) -> list[int]:
    async with await psycopg.AsyncConnection.connect(**login(stack, "chat_reader")) as connection:
        cursor = await connection.execute(
            "SELECT seq FROM conversation_log WHERE conversation_id = %s ORDER BY seq", (conversation_id,)
        )
        return [row[0] for row in await cursor.fetchall()]


async def test_seqs_are_dense_whoever_writes(stack: Stack, client: ChatClient) -> None:
    alice = await client.register()
    ids = [await client.create_conversation(alice) for _ in range(7)]
    async with running_writer(stack) as one, running_writer(stack, batch_size=13) as other:
        appended = await asyncio.gather(
            *((one, other)[n % 2].append(message(ids[n % 7], alice, str(n))) for n in range(1400))
        )
    assert not any(place.is_replay for place in appended)
    for index, conversation_id in enumerate(ids):
        expected = list(range(2, 202))
        assert sorted(place.seq for n, place in enumerate(appended) if n % 7 == index) == expected
        assert await seqs_in(stack, conversation_id) == [1, *expected]


async def test_one_batch_holds_every_outcome_and_each_fails_alone(stack: Stack, client: ChatClient) -> None:
    alice, mallory = await client.register("alice"), await client.register("mallory")
    conversation_id = await client.create_conversation(alice)
    first, taken, stored = (str(uuid.uuid4()) for _ in range(3))
    async with running_writer(stack, connections=1) as writer:
        await writer.append(message(conversation_id, alice, "stored", message_id=stored))
        results = await asyncio.gather(
            writer.append(message(conversation_id, alice, "one", message_id=first)),
            writer.append(message(conversation_id, mallory, "intruder")),
            writer.append(message(str(uuid.uuid4()), alice, "nowhere")),
            writer.append(message(conversation_id, alice, "one", message_id=first)),
            writer.append(message(conversation_id, alice, "not one", message_id=first)),
            writer.append(message(conversation_id, alice, "stored", message_id=stored)),
            writer.append(message(conversation_id, alice, "reply", reply_to=stored)),
            writer.append(message(conversation_id, alice, "reply", reply_to=taken)),
            writer.append(message(conversation_id, mallory, "stored", message_id=stored)),
            return_exceptions=True,
        )
    outcome = [getattr(result, "seq", None) or type(result) for result in results]
    assert outcome == [
        3, ConversationNotFound, ConversationNotFound, 3, EventIdTaken, 2, 4, UnknownReply, ConversationNotFound,
    ]  # fmt: skip
    replays = [getattr(result, "is_replay", None) for result in results]
    assert replays == [False, None, None, True, None, True, False, None, None]
    assert await seqs_in(stack, conversation_id) == [1, 2, 3, 4]


async def test_the_same_id_in_two_conversations_at_once_is_one_message(stack: Stack, client: ChatClient) -> None:
    alice = await client.register()
    one, other = await client.create_conversation(alice), await client.create_conversation(alice)
    async with running_writer(stack, connections=4, batch_size=1) as writer:
        for _ in range(25):
            message_id = str(uuid.uuid4())
            results = await asyncio.gather(
                writer.append(message(one, alice, message_id=message_id)),
                writer.append(message(other, alice, message_id=message_id)),
                return_exceptions=True,
            )
            assert sorted(type(result).__name__ for result in results) == ["Appended", "EventIdTaken"]
    seqs = await seqs_in(stack, one), await seqs_in(stack, other)
    assert seqs == (list(range(1, len(seqs[0]) + 1)), list(range(1, len(seqs[1]) + 1)))
    assert len(seqs[0]) + len(seqs[1]) == 27


async def test_a_full_queue_refuses_instead_of_growing(stack: Stack, client: ChatClient) -> None:
    alice = await client.register()
    conversation_id = await client.create_conversation(alice)
    async with running_writer(stack, connections=1, queue_size=10) as writer:
        results = await asyncio.gather(
            *(writer.append(message(conversation_id, alice)) for _ in range(30)), return_exceptions=True
        )
    refused = [result for result in results if isinstance(result, WriterSaturated)]
    assert len(refused) == 20
    assert await seqs_in(stack, conversation_id) == list(range(1, 12))


async def test_a_connection_that_breaks_leaves_the_outcome_unknown_and_a_retry_settles_it(
    stack: Stack, client: ChatClient
) -> None:
    alice = await client.register()
    conversation_id = await client.create_conversation(alice)
    entry = message(conversation_id, alice)
    async with (
        await psycopg.AsyncConnection.connect(**login(stack, "chat_api")) as blocker,
        await psycopg.AsyncConnection.connect(**login(stack, "chat_owner"), autocommit=True) as owner,
        running_writer(stack, connections=1) as writer,
    ):
        await blocker.execute("SELECT FROM conversations WHERE conversation_id = %s FOR UPDATE", (conversation_id,))
        waiting = asyncio.create_task(writer.append(entry))
        blocked = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE %s AND wait_event_type = 'Lock'"
        )
        async with asyncio.timeout(10):
            while not await (await owner.execute(blocked, ("%append_entries%",))).fetchall():
                await asyncio.sleep(0.05)
        with pytest.raises(OutcomeUnknown):
            await waiting
        await blocker.rollback()
        assert (await writer.append(entry)).seq == 2
        assert (await writer.append(entry)).is_replay
    assert await seqs_in(stack, conversation_id) == [1, 2]


async def test_a_cancelled_request_leaves_nothing_half_done(stack: Stack, client: ChatClient) -> None:
    alice = await client.register()
    conversation_id = await client.create_conversation(alice)
    async with running_writer(stack) as writer:
        entries = [message(conversation_id, alice, str(n)) for n in range(50)]
        tasks = [asyncio.create_task(writer.append(entry)) for entry in entries]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        appended = await asyncio.gather(*(writer.append(entry) for entry in entries))
    assert sorted(place.seq for place in appended) == list(range(2, 52))
    assert await seqs_in(stack, conversation_id) == list(range(1, 52))


async def test_the_outbox_is_always_empty(stack: Stack, client: ChatClient) -> None:
    alice = await client.register()
    await client.send(alice, await client.create_conversation(alice), "hi")
    async with await psycopg.AsyncConnection.connect(**login(stack, "chat_owner")) as connection:
        assert await (await connection.execute("SELECT count(*) FROM outbox")).fetchone() == (0,)


FORBIDDEN = {
    "chat_api": [
        "UPDATE conversation_log SET payload = ''",
        "DELETE FROM conversation_log",
        "DELETE FROM conversations",
        "UPDATE users SET password_hash = ''",
        "INSERT INTO oauth_clients VALUES ('x', 'x', 'x', '{}', '{}')",
        "SELECT pg_drop_replication_slot('chat4all_outbox')",
        "CREATE TABLE mine ()",
    ],
    "chat_cdc": [
        "SELECT FROM conversation_log",
        "SELECT FROM users",
        "INSERT INTO outbox (id) VALUES (gen_random_uuid())",
        "DELETE FROM cdc_heartbeat",
        "CREATE TABLE mine ()",
    ],
    "chat_reader": [
        "SELECT password_hash FROM users",
        "SELECT FROM refresh_tokens",
        "SELECT FROM outbox",
        "SET default_transaction_read_only = off; UPDATE conversations SET last_seq = 0",
        "CREATE TABLE mine ()",
    ],
}


@pytest.mark.parametrize(("role", "statement"), [(role, sql) for role, all_of in FORBIDDEN.items() for sql in all_of])
async def test_a_role_may_do_no_more_than_it_needs(stack: Stack, role: str, statement: str) -> None:
    async with await psycopg.AsyncConnection.connect(**login(stack, role), autocommit=True) as connection:
        with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.ReadOnlySqlTransaction)):
            await connection.execute(statement.encode())


async def test_no_role_of_the_programs_is_a_superuser(stack: Stack) -> None:
    async with await psycopg.AsyncConnection.connect(**login(stack, "chat_owner")) as connection:
        cursor = await connection.execute(
            "SELECT rolname, rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls FROM pg_roles"
            " WHERE rolname IN ('chat_api', 'chat_cdc', 'chat_reader') ORDER BY rolname"
        )
        assert await cursor.fetchall() == [
            ("chat_api", False, False, False, False, False),
            ("chat_cdc", False, False, False, True, False),
            ("chat_reader", False, False, False, False, False),
        ]


def owner_settings(stack: Stack) -> DatabaseSettings:
    return DatabaseSettings.model_validate(
        {
            "database_port": stack.ports.postgres,
            "database_user": "chat_owner",
            "database_password": stack.secrets.database_owner,
        }
    )


def test_the_migrations_make_the_tables_that_the_code_declares(stack: Stack) -> None:
    settings = owner_settings(stack)
    engine = create_engine(
        engine_url(settings), connect_args={"password": settings.database_password.get_secret_value()}
    )
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


async def test_readiness_names_what_is_missing(stack: Stack) -> None:
    settings = owner_settings(stack)
    ready = create_async_engine(settings)
    elsewhere = create_async_engine(settings.model_copy(update={"database_name": "postgres"}))
    away = create_async_engine(settings.model_copy(update={"database_port": 1}))
    try:
        assert await find_obstacles(ready) == []
        assert await find_obstacles(ready, slot="absent") == [
            "The replication slot absent is missing: what is written now would not be streamed."
        ]
        assert "publication" in (await find_obstacles(elsewhere))[0]
        assert await find_obstacles(away) == ["The database cannot be reached."]
    finally:
        for engine in (ready, elsewhere, away):
            await engine.dispose()
