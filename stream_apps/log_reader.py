"""Reads conversations from Postgres, where the truth is. For what the Redis tables do not hold; it writes nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, LiteralString, Self

import psycopg
from psycopg import AsyncConnection, IsolationLevel
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from stream_apps.breaker import Breaker

RECONNECT_SECONDS = 1.0
"""How long the pool tries to open a connection before the next caller makes it try again."""

# The entries after a seq, in seq order.
READ_ENTRIES = """
    SELECT seq, event_id::text, type, payload FROM conversation_log
    WHERE conversation_id = %(conversation_id)s AND seq > %(after_seq)s
    ORDER BY seq LIMIT %(limit)s
"""

# The newest entries before a seq, newest first.
READ_ENTRIES_BEFORE = """
    SELECT seq, event_id::text, type, payload FROM conversation_log
    WHERE conversation_id = %(conversation_id)s AND seq < %(before_seq)s
    ORDER BY seq DESC LIMIT %(limit)s
"""

# A conversation with those who are in it, one row per participant, who came first before who came later.
READ_CONVERSATION = """
    SELECT c.title, c.last_seq, p.user_id::text, p.joined_seq
    FROM conversations c
    LEFT JOIN participants p ON p.conversation_id = c.conversation_id AND p.left_seq IS NULL
    WHERE c.conversation_id = %(conversation_id)s
    ORDER BY p.joined_seq, p.user_id
"""

# What the conversation's latest message is.
READ_LAST_MESSAGE = """
    SELECT payload FROM conversation_log
    WHERE conversation_id = %(conversation_id)s AND type = 'MessageSent'
    ORDER BY seq DESC LIMIT 1
"""

# Which conversations a user is in.
READ_USER_CONVERSATIONS = """
    SELECT conversation_id::text, joined_seq FROM participants
    WHERE user_id = %(user_id)s AND left_seq IS NULL
"""

# Whether a user is in a conversation, and how far that is.
READ_MEMBERSHIP = """
    SELECT p.joined_seq, c.last_seq
    FROM participants p JOIN conversations c USING (conversation_id)
    WHERE p.conversation_id = %(conversation_id)s AND p.user_id = %(user_id)s AND p.left_seq IS NULL
"""

# How far conversations are.
READ_LAST_SEQS = """
    SELECT conversation_id::text, last_seq FROM conversations WHERE conversation_id = ANY (%(conversation_ids)s::uuid[])
"""

# What an inbox shows of conversations.
READ_SUMMARIES = """
    SELECT c.conversation_id::text, c.last_seq, c.title, message.payload, entry.payload
    FROM conversations c
    LEFT JOIN LATERAL (
        SELECT payload FROM conversation_log l
        WHERE l.conversation_id = c.conversation_id AND l.type = 'MessageSent'
        ORDER BY l.seq DESC LIMIT 1) message ON true
    LEFT JOIN conversation_log entry ON entry.conversation_id = c.conversation_id AND entry.seq = c.last_seq
    WHERE c.conversation_id = ANY (%(conversation_ids)s::uuid[])
"""

# The cheapest question that only a working database answers.
PING = "SELECT 1"


class LogUnavailable(Exception):
    """Postgres cannot be reached, or did not answer in time."""


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One row of `conversation_log`. `payload` is the exact JSON text that was stored, UTF-8."""

    seq: int
    event_id: str
    event_type: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Membership:
    """That a user is in a conversation since `joined_seq`; the conversation is at `last_seq`."""

    joined_seq: int
    last_seq: int


@dataclass(frozen=True, slots=True)
class ConversationDetails:
    """A conversation with its present participants: user id -> the seq at which the user joined, oldest first."""

    title: str | None
    last_seq: int
    participants: dict[str, int]


@dataclass(frozen=True, slots=True)
class ConversationSummary:
    """What an inbox shows. `last_message` is the payload of the latest MessageSent, `last_entry` that of the entry
    at `last_seq`."""

    last_seq: int
    title: str | None
    last_message: bytes | None
    last_entry: bytes | None


@dataclass(frozen=True, slots=True)
class ConversationSnapshot:
    """Everything that the Redis tables hold of a conversation, as of one moment. `entries` are the newest, in seq
    order."""

    conversation_id: str
    seq: int
    title: str | None
    participants: dict[str, int]
    last_message: bytes | None
    entries: list[LogEntry]


class LogReader:
    """Queries over a small pool that connects when it is first needed, so its program starts while Postgres is down.

    `connection_arguments` are psycopg's. Every query takes `timeout_seconds` at most, twice that with the wait for a
    connection; while none can be had, only one caller a second waits. Every method raises LogUnavailable.
    """

    def __init__(
        self, connection_arguments: Mapping[str, Any], *, max_connections: int = 4, timeout_seconds: float = 2.0
    ) -> None:
        self._breaker = Breaker(retry_seconds=RECONNECT_SECONDS)
        self._pool: AsyncConnectionPool[AsyncConnection[tuple[Any, ...]]] = AsyncConnectionPool(
            kwargs={
                **connection_arguments,
                "autocommit": True,
                "connect_timeout": max(2, round(timeout_seconds)),
                "tcp_user_timeout": round(timeout_seconds * 2000),
                "options": f"-c statement_timeout={round(timeout_seconds * 1000)}",
            },
            min_size=0,
            max_size=max_connections,
            open=False,
            configure=_make_transactions_snapshots,
            check=AsyncConnectionPool.check_connection,
            timeout=timeout_seconds,
            reconnect_timeout=RECONNECT_SECONDS,
            name="log_reader",
        )

    async def open(self) -> None:
        """Makes the reader usable. Does not connect, so it cannot fail."""
        await self._pool.open(wait=False)

    async def close(self) -> None:
        """Closes all connections."""
        await self._pool.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def ping(self) -> None:
        """Returns when Postgres has answered."""
        await self._fetch(PING, {})

    async def read_entries(self, conversation_id: str, *, after_seq: int, limit: int) -> list[LogEntry]:
        """The first `limit` entries after a seq, in seq order."""
        rows = await self._fetch(
            READ_ENTRIES, {"conversation_id": conversation_id, "after_seq": after_seq, "limit": limit}
        )
        return [_entry(row) for row in rows]

    async def read_entries_before(self, conversation_id: str, *, before_seq: int, limit: int) -> list[LogEntry]:
        """The last `limit` entries before a seq, in seq order."""
        rows = await self._fetch(
            READ_ENTRIES_BEFORE, {"conversation_id": conversation_id, "before_seq": before_seq, "limit": limit}
        )
        return [_entry(row) for row in reversed(rows)]

    async def find_conversation(self, conversation_id: str) -> ConversationDetails | None:
        """Title, seq and participants, or None if there is no such conversation."""
        return _details(await self._fetch(READ_CONVERSATION, {"conversation_id": conversation_id}))

    async def find_membership(self, conversation_id: str, user_id: str) -> Membership | None:
        """Whether the user is in the conversation now: None if not, or if there is no such conversation."""
        rows = await self._fetch(READ_MEMBERSHIP, {"conversation_id": conversation_id, "user_id": user_id})
        return Membership(*rows[0]) if rows else None

    async def read_user_conversations(self, user_id: str) -> dict[str, int]:
        """The conversations that the user is in now -> the seq at which the user joined."""
        return dict(await self._fetch(READ_USER_CONVERSATIONS, {"user_id": user_id}))

    async def read_last_seqs(self, conversation_ids: Sequence[str]) -> dict[str, int]:
        """How far each of the conversations is; those that do not exist are left out."""
        return dict(await self._fetch(READ_LAST_SEQS, {"conversation_ids": list(conversation_ids)}))

    async def read_summaries(self, conversation_ids: Sequence[str]) -> dict[str, ConversationSummary]:
        """What an inbox shows of each of the conversations; those that do not exist are left out."""
        rows = await self._fetch(READ_SUMMARIES, {"conversation_ids": list(conversation_ids)})
        return {
            conversation_id: ConversationSummary(last_seq, title, _bytes(last_message), _bytes(last_entry))
            for conversation_id, last_seq, title, last_message, last_entry in rows
        }

    async def read_snapshot(self, conversation_id: str, *, entries: int) -> ConversationSnapshot | None:
        """The conversation with its newest `entries` entries, all of one moment; None if there is no such
        conversation."""
        of = {"conversation_id": conversation_id}
        async with self._connection() as connection, connection.transaction():
            details = _details(await _all(connection, READ_CONVERSATION, of))
            if details is None:
                return None
            newest = {**of, "before_seq": details.last_seq + 1, "limit": entries}
            rows = await _all(connection, READ_ENTRIES_BEFORE, newest)
            last_message = await _all(connection, READ_LAST_MESSAGE, of)
        return ConversationSnapshot(
            conversation_id=conversation_id,
            seq=details.last_seq,
            title=details.title,
            participants=details.participants,
            last_message=last_message[0][0].encode() if last_message else None,
            entries=[_entry(row) for row in reversed(rows)],
        )

    async def _fetch(self, query: LiteralString, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
        async with self._connection() as connection:
            return await _all(connection, query, parameters)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[AsyncConnection[tuple[Any, ...]]]:
        if not self._breaker.may_try():
            raise LogUnavailable("Postgres could not be reached a moment ago.")
        try:
            async with self._pool.connection() as connection:
                self._breaker.succeeded()
                yield connection
        except PoolTimeout as error:
            self._breaker.failed()
            raise LogUnavailable(f"{type(error).__name__}: {error}") from error
        except (psycopg.OperationalError, PoolClosed) as error:
            raise LogUnavailable(f"{type(error).__name__}: {error}") from error


async def _make_transactions_snapshots(connection: AsyncConnection[tuple[Any, ...]]) -> None:
    """Queries run by themselves; a transaction block, where one is opened, sees one moment."""
    await connection.set_isolation_level(IsolationLevel.REPEATABLE_READ)
    await connection.set_read_only(True)


async def _all(
    connection: AsyncConnection[tuple[Any, ...]], query: LiteralString, parameters: dict[str, Any]
) -> list[tuple[Any, ...]]:
    return await (await connection.execute(query, parameters)).fetchall()


def _bytes(payload: str | None) -> bytes | None:
    return None if payload is None else payload.encode()


def _entry(row: tuple[Any, ...]) -> LogEntry:
    seq, event_id, event_type, payload = row
    return LogEntry(seq, event_id, event_type, payload.encode())


def _details(rows: list[tuple[Any, ...]]) -> ConversationDetails | None:
    if not rows:
        return None
    title, last_seq, _, _ = rows[0]
    participants = {user_id: joined_seq for _, _, user_id, joined_seq in rows if user_id is not None}
    return ConversationDetails(title=title, last_seq=last_seq, participants=participants)
