"""Reads conversations from Postgres, where the truth is. For what the Redis tables do not hold; it writes nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, LiteralString, Self

import psycopg
from psycopg import AsyncConnection, IsolationLevel
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from schemas.events import MessageDeleted, MessageEdited, parse_event
from schemas.redis_keys import Participation, Receipt, Stay
from stream_apps import log_queries
from stream_apps.breaker import Breaker
from stream_apps.stays import stays_of

CHANGE_TYPES = frozenset({"MessageEdited", "MessageDeleted"})

RECONNECT_SECONDS = 1.0
"""How long the pool tries to open a connection before the next caller makes it try again."""


class LogUnavailable(Exception):
    """Postgres cannot be reached, or did not answer in time."""


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One row of `conversation_log`. `payload` is the exact JSON text that was stored, UTF-8. `traceparent` is no part
    of what happened, and not everybody who has an entry knows it."""

    seq: int
    event_id: str
    event_type: str
    payload: bytes
    traceparent: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Membership:
    """A user's stay in a conversation, from `joined_seq` to `left_seq` (None while it lasts), both included; the
    conversation is at `last_seq`."""

    joined_seq: int
    left_seq: int | None
    last_seq: int

    @property
    def end_seq(self) -> int:
        """The last seq that is known to be the user's to see."""
        return self.last_seq if self.left_seq is None else min(self.left_seq, self.last_seq)


@dataclass(frozen=True, slots=True)
class ChannelTarget:
    """A participant's channel that is in use since `verified_at`, and the participant's latest stay."""

    channel: str
    channel_id: str
    user_id: str
    stay: Stay
    verified_at: datetime


@dataclass(frozen=True, slots=True)
class Delivery:
    """How far a message is on its way over a user's channel."""

    user_id: str
    channel: str
    is_delivered: bool
    is_disabled: bool


@dataclass(frozen=True, slots=True)
class Deliveries:
    """A message's seq and sender, and its deliveries."""

    seq: int
    actor_id: str
    deliveries: list[Delivery]


@dataclass(frozen=True, slots=True)
class Moments:
    """What Postgres knows of a message's way. Times are microseconds since 1970; `committed_us` is None if it is not
    known (any more)."""

    seq: int
    created_us: int
    committed_us: int | None
    traceparent: str | None


@dataclass(frozen=True, slots=True)
class ConversationDetails:
    """A conversation with everyone who is or was in it, oldest first, and their receipts."""

    title: str | None
    last_seq: int
    participants: dict[str, Participation]
    receipts: dict[str, Receipt]


@dataclass(frozen=True, slots=True)
class ConversationSummary:
    """What an inbox shows a user, as of when the user left if it has. `last_message` is the payload of the latest
    MessageSent, `last_change` that of its latest change, `last_entry` that of the entry at `membership.end_seq`."""

    membership: Membership
    title: str | None
    last_message: bytes | None
    last_change: bytes | None
    last_entry: bytes | None
    read_seq: int


@dataclass(frozen=True, slots=True)
class ConversationSnapshot:
    """Everything that the Redis tables hold of a conversation, as of one moment. `entries` are the newest, in seq
    order. `last_change` is the latest change of the last message."""

    conversation_id: str
    seq: int
    title: str | None
    participants: dict[str, Participation]
    receipts: dict[str, Receipt]
    last_message: bytes | None
    last_change: bytes | None
    entries: list[LogEntry]

    @property
    def changes(self) -> dict[str, LogEntry]:
        """Message id -> its latest change, for every message among the entries (changes are younger than their
        messages). Those that cannot be read are left out."""
        return latest_changes(self.entries)


def latest_changes(entries: Sequence[LogEntry]) -> dict[str, LogEntry]:
    """Message id -> its latest change among entries that are in seq order."""
    changes: dict[str, LogEntry] = {}
    for entry in entries:
        if entry.event_type in CHANGE_TYPES:
            try:
                changed = parse_event(entry.payload)
            except ValueError:
                continue
            if isinstance(changed, MessageEdited | MessageDeleted):
                changes[str(changed.message_id)] = entry
    return changes


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
        await self._fetch(log_queries.PING, {})

    async def read_entries(self, conversation_id: str, *, after_seq: int, limit: int) -> list[LogEntry]:
        """The first `limit` entries after a seq, in seq order."""
        rows = await self._fetch(
            log_queries.READ_ENTRIES, {"conversation_id": conversation_id, "after_seq": after_seq, "limit": limit}
        )
        return [_entry(row) for row in rows]

    async def read_entries_before(self, conversation_id: str, *, before_seq: int, limit: int) -> list[LogEntry]:
        """The last `limit` entries before a seq, in seq order."""
        rows = await self._fetch(
            log_queries.READ_ENTRIES_BEFORE,
            {"conversation_id": conversation_id, "before_seq": before_seq, "limit": limit},
        )
        return [_entry(row) for row in reversed(rows)]

    async def find_conversation(self, conversation_id: str) -> ConversationDetails | None:
        """Title, seq, participants and receipts, or None if there is no such conversation."""
        of = {"conversation_id": conversation_id}
        async with self._connection() as connection, connection.transaction():
            return await _find_details(connection, of)

    async def read_structure(self, conversation_id: str, *, up_to_seq: int) -> list[LogEntry]:
        """The entries up to a seq that tell who was in the conversation, and its title; in seq order."""
        of = {"conversation_id": conversation_id, "up_to_seq": up_to_seq}
        return [_entry(row) for row in await self._fetch(log_queries.READ_STRUCTURE, of)]

    async def read_changes(
        self, conversation_id: str, message_ids: Sequence[str], *, after_seq: int, up_to_seq: int
    ) -> dict[str, LogEntry]:
        """Message id -> the latest change of it, of those changes that lie after a seq and not after another."""
        of = {
            "conversation_id": conversation_id,
            "message_ids": list(message_ids),
            "after_seq": after_seq,
            "up_to_seq": up_to_seq,
        }
        return {message_id: _entry(row) for message_id, *row in await self._fetch(log_queries.READ_CHANGES, of)}

    async def find_membership(self, conversation_id: str, user_id: str) -> Membership | None:
        """The user's stay in the conversation: None if it never was in it, or if there is no such conversation."""
        return (await self.read_memberships(user_id, [conversation_id])).get(conversation_id)

    async def read_memberships(self, user_id: str, conversation_ids: Sequence[str]) -> dict[str, Membership]:
        """The user's stay in each of the conversations; those that it never was in are left out."""
        of = {"user_id": user_id, "conversation_ids": list(conversation_ids)}
        return {name: Membership(*stay) for name, *stay in await self._fetch(log_queries.READ_MEMBERSHIPS, of)}

    async def read_last_seqs(self, conversation_ids: Sequence[str]) -> dict[str, int]:
        """How far each of the conversations is; those that do not exist are left out."""
        return dict(await self._fetch(log_queries.READ_LAST_SEQS, {"conversation_ids": list(conversation_ids)}))

    async def read_user_conversations(self, user_id: str) -> dict[str, Stay]:
        """The conversations that the user is or was in."""
        rows = await self._fetch(log_queries.READ_USER_CONVERSATIONS, {"user_id": user_id})
        return {name: Stay(*stay) for name, *stay in rows}

    async def read_summaries(self, user_id: str, conversation_ids: Sequence[str]) -> dict[str, ConversationSummary]:
        """What an inbox shows the user of each of the conversations; those that it never was in are left out."""
        of = {"user_id": user_id, "conversation_ids": list(conversation_ids)}
        return {
            name: ConversationSummary(
                Membership(joined_seq, left_seq, seq), title, _bytes(message), _bytes(change), _bytes(entry), read_seq
            )
            for name, seq, joined_seq, left_seq, title, message, change, entry, read_seq in await self._fetch(
                log_queries.READ_SUMMARIES, of
            )
        }

    async def read_unread(self, user_id: str, ranges: Mapping[str, tuple[int, int]]) -> dict[str, int]:
        """How many messages of others there are in each conversation's range of seqs (both included)."""
        of = {
            "user_id": user_id,
            "conversation_ids": list(ranges),
            "first_seqs": [first for first, _ in ranges.values()],
            "last_seqs": [last for _, last in ranges.values()],
        }
        return dict(await self._fetch(log_queries.READ_UNREAD, of))

    async def read_stays(self, conversation_id: str, user_id: str) -> list[Stay]:
        """All stays of a user in a conversation, the oldest first."""
        of = {"conversation_id": conversation_id, "user_id": user_id}
        rows = await self._fetch(log_queries.READ_COMINGS_AND_GOINGS, of)
        return stays_of((seq, event_type) for seq, event_type in rows)

    async def read_channel_revision(self) -> int:
        """Changes with every change of any channel, when that is committed."""
        return int((await self._fetch(log_queries.READ_CHANNEL_REVISION, {}))[0][0])

    async def read_channel_targets(self, conversation_ids: Sequence[str]) -> dict[str, list[ChannelTarget]]:
        """Who in each of the conversations has a channel in use. Every conversation is there."""
        found: dict[str, list[ChannelTarget]] = {conversation_id: [] for conversation_id in conversation_ids}
        for conversation_id, channel, channel_id, user_id, *stay, verified_at in await self._fetch(
            log_queries.READ_CHANNEL_TARGETS, {"conversation_ids": list(conversation_ids)}
        ):
            found[conversation_id].append(ChannelTarget(channel, channel_id, user_id, Stay(*stay), verified_at))
        return found

    async def find_deliveries(self, conversation_id: str, message_id: str) -> Deliveries | None:
        """How far a message is over the channels of its recipients; None if there is no such message."""
        of = {"conversation_id": conversation_id, "message_id": message_id}
        rows = await self._fetch(log_queries.READ_DELIVERIES, of)
        if not rows:
            return None
        return Deliveries(
            seq=rows[0][0],
            actor_id=rows[0][1],
            deliveries=[Delivery(*delivery) for _, _, *delivery in rows if delivery[0] is not None],
        )

    async def find_moments(self, conversation_id: str, message_id: str) -> Moments | None:
        """When a message got its seq and when that was committed; None if there is no such message."""
        of = {"conversation_id": conversation_id, "message_id": message_id}
        rows = await self._fetch(log_queries.READ_MOMENTS, of)
        return Moments(*rows[0]) if rows else None

    async def read_snapshot(self, conversation_id: str, *, entries: int) -> ConversationSnapshot | None:
        """The conversation with its newest `entries` entries, all of one moment; None if there is no such
        conversation."""
        of = {"conversation_id": conversation_id}
        async with self._connection() as connection, connection.transaction():
            details = await _find_details(connection, of)
            if details is None:
                return None
            newest = {**of, "before_seq": details.last_seq + 1, "limit": entries}
            rows = await _all(connection, log_queries.READ_ENTRIES_BEFORE, newest)
            last_message = await _all(connection, log_queries.READ_LAST_MESSAGE, of)
        message, change = last_message[0] if last_message else (None, None)
        return ConversationSnapshot(
            conversation_id=conversation_id,
            seq=details.last_seq,
            title=details.title,
            participants=details.participants,
            receipts=details.receipts,
            last_message=_bytes(message),
            last_change=_bytes(change),
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


def _entry(row: Sequence[Any]) -> LogEntry:
    seq, event_id, event_type, payload, traceparent = row
    return LogEntry(seq, event_id, event_type, payload.encode(), traceparent)


async def _find_details(connection: AsyncConnection[tuple[Any, ...]], of: dict[str, Any]) -> ConversationDetails | None:
    rows = await _all(connection, log_queries.READ_CONVERSATION, of)
    if not rows:
        return None
    receipts = await _all(connection, log_queries.READ_RECEIPTS, of)
    title, last_seq = rows[0][:2]
    return ConversationDetails(
        title=title,
        last_seq=last_seq,
        participants={user_id: Participation(*stay) for _, _, user_id, *stay in rows if user_id is not None},
        receipts={user_id: Receipt(*maxima) for user_id, *maxima in receipts},
    )
