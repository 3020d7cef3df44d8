"""What the channels app keeps in Postgres: how far each target is in each conversation. And what it reads there.

A target that is away for days is a few rows here, and nothing in memory.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, LiteralString, NamedTuple

import psycopg
from psycopg import AsyncConnection, errors
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from schemas.redis_keys import Stay
from stream_apps.channels import queries
from stream_apps.channels.model import MESSAGES_PER_DELIVERY, Letter, Message, Target, cut, make_message
from stream_apps.log_queries import READ_COMINGS_AND_GOINGS
from stream_apps.log_reader import LogUnavailable
from stream_apps.stays import is_within, stays_of

NIL = "00000000-0000-0000-0000-000000000000"


class Request(NamedTuple):
    """Messages from one seq to another are to be delivered to a channel; `partition` is that of their records."""

    channel_id: str
    conversation_id: str
    partition: int
    first_seq: int
    last_seq: int


class Line(NamedTuple):
    """How far a target is in a conversation: what lies after one seq, up to another, is to be delivered."""

    channel_id: str
    conversation_id: str
    delivered_seq: int
    last_seq: int


class Page(NamedTuple):
    """What of a line is to be delivered next (None: there is nothing for the user in it), and the seq up to which that
    brings it."""

    letter: Letter | None
    up_to_seq: int


class Store:
    """Questions and changes, over a small pool that connects when it is first needed. Every method raises
    LogUnavailable when Postgres is away."""

    def __init__(self, connection_arguments: Mapping[str, Any], *, max_connections: int = 4) -> None:
        self._pool: AsyncConnectionPool[AsyncConnection[tuple[Any, ...]]] = AsyncConnectionPool(
            kwargs={**connection_arguments, "autocommit": True, "options": "-c statement_timeout=5000"},
            min_size=0,
            max_size=max_connections,
            open=False,
            check=AsyncConnectionPool.check_connection,
            timeout=5.0,
            reconnect_timeout=1.0,
            name="channels",
        )

    async def open(self) -> None:
        """Makes the store usable. Does not connect, so it cannot fail."""
        await self._pool.open(wait=False)

    async def close(self) -> None:
        """Closes all connections."""
        await self._pool.close()

    async def note_requests(self, requests: Sequence[Request]) -> set[str]:
        """Returns when the requests are on disk; the channels that have something to deliver. Requests for channels
        that are not in use any more are passed over. At least one, and at most one per channel and conversation."""
        columns = [list(column) for column in zip(*sorted(requests), strict=True)]
        while True:
            try:
                rows = await self._run(queries.NOTE_REQUESTS, dict(zip(Request._fields, columns, strict=True)))
            except errors.ForeignKeyViolation:
                continue  # a channel was removed at this very moment; it is not found the next time
            return {row[0] for row in rows}

    async def find_channels_behind(self, channel: str, partitions: Collection[int]) -> list[str]:
        """The channels in use that have something to deliver in these partitions."""
        of = {"channel": channel, "partitions": list(partitions)}
        return [row[0] for row in await self._run(queries.FIND_CHANNELS_BEHIND, of)]

    async def find_lines_behind(
        self, channel_id: str, partitions: Collection[int], *, after: str, limit: int
    ) -> list[Line]:
        """The first lines of a channel after a conversation's id that are behind, in the order of these ids."""
        of = {"channel_id": channel_id, "partitions": list(partitions), "after": after, "limit": limit}
        return [Line(*row) for row in await self._run(queries.FIND_LINES_BEHIND, of)]

    async def find_target(self, channel_id: str) -> Target | None:
        """The channel, if it is verified and not disabled."""
        return self._target(await self._run(queries.FIND_TARGET, {"channel_id": channel_id, "is_verified": True}))

    async def find_unverified(self, channel_id: str) -> Target | None:
        """The channel, if a verification code is still to be sent."""
        return self._target(await self._run(queries.FIND_TARGET, {"channel_id": channel_id, "is_verified": False}))

    async def find_challenges(self) -> list[str]:
        """The channels that were set within the last hour and were not sent their code."""
        return [row[0] for row in await self._run(queries.FIND_CHALLENGES, {})]

    async def read_page(self, line: Line, user_id: str) -> Page:
        """What is to be delivered next to this user."""
        of = {**line._asdict(), "user_id": user_id, "limit": MESSAGES_PER_DELIVERY}
        async with self._connection() as connection:
            rows = await (await connection.execute(queries.READ_MESSAGES, of)).fetchall()
            if not rows:
                return Page(None, line.last_seq)
            joined_seq, left_seq, title = rows[0][:3]
            messages = [_message(row[3:]) for row in rows]
            stays = [Stay(joined_seq, left_seq)]
            if joined_seq > messages[0].seq:  # the user came back: an earlier stay may lie in this line
                told = await (await connection.execute(READ_COMINGS_AND_GOINGS, of)).fetchall()
                stays = stays_of((seq, event_type) for seq, event_type in told)
        shown = cut([message for message in messages if is_within(message.seq, stays)])
        if not shown:
            return Page(None, line.last_seq if len(rows) < MESSAGES_PER_DELIVERY else messages[-1].seq)
        return Page(Letter(line.conversation_id, title, shown), shown[-1].seq)

    async def advance(self, lines: Sequence[Line]) -> None:
        """The lines are delivered up to their `delivered_seq`."""
        of = {
            "channel_ids": [line.channel_id for line in lines],
            "conversation_ids": [line.conversation_id for line in lines],
            "delivered_seqs": [line.delivered_seq for line in lines],
        }
        await self._run(queries.ADVANCE, of)

    async def mark_failing(self, channel_id: str, reason: str) -> float:
        """Notes why a try failed; the seconds since the first failure after the last success (0: the channel is
        gone)."""
        rows = await self._run(queries.MARK_FAILING, {"channel_id": channel_id, "reason": reason})
        return float(rows[0][0]) if rows else 0.0

    async def mark_healthy(self, channel_id: str) -> None:
        """A try succeeded."""
        await self._run(queries.MARK_HEALTHY, {"channel_id": channel_id})

    async def mark_challenged(self, channel_id: str) -> None:
        """The target took the verification code."""
        await self._run(queries.MARK_CHALLENGED, {"channel_id": channel_id})

    async def disable(self, channel_id: str, reason: str) -> bool:
        """Ends deliveries over the channel, and tells so on user.events. Whether it was in use."""
        return bool((await self._run(queries.DISABLE, {"channel_id": channel_id, "reason": reason}))[0][0])

    @staticmethod
    def _target(rows: list[tuple[Any, ...]]) -> Target | None:
        if not rows:
            return None
        channel_id, user_id, channel, address, is_failing, secrets = rows[0]
        return Target(channel_id, user_id, channel, address, tuple(bytes(secret) for secret in secrets), is_failing)

    async def _run(self, query: LiteralString, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
        async with self._connection() as connection:
            cursor = await connection.execute(query, parameters)
            return await cursor.fetchall() if cursor.description else []

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[AsyncConnection[tuple[Any, ...]]]:
        try:
            async with self._pool.connection() as connection:
                yield connection
        except (PoolTimeout, psycopg.OperationalError, PoolClosed) as error:
            raise LogUnavailable(f"{type(error).__name__}: {error}") from error


def _message(row: Sequence[Any]) -> Message:
    seq, event_id, actor_id, actor_name, payload, traceparent, change_type, change = row
    message = make_message(event_id, seq, actor_id, actor_name, payload, (change_type, change) if change_type else None)
    return replace(message, traceparent=traceparent)
