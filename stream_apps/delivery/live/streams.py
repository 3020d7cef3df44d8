"""All live clients of this process: how a session is opened and resumed, and how all of them end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from schemas.redis_keys import Stay
from schemas.tokens import Principal
from stream_apps.delivery.live.bases import new_base
from stream_apps.delivery.live.client import ClientLimits, End, LiveClient
from stream_apps.delivery.live.cursors import (
    MAX_WITHOUT_BASE,
    Base,
    MalformedCursor,
    Scope,
    decode_cursor,
    resolve,
)
from stream_apps.delivery.live.encoding import Encoding, Subscription
from stream_apps.delivery.live.presence import Presence
from stream_apps.delivery.live.session import Beginning, Session, SessionParts
from stream_apps.delivery.tables import TablesUnavailable

logger = logging.getLogger(__name__)

TICK_SECONDS = 1.0
DRAIN_SECONDS = 2.0


class Streams:
    """Admits clients, opens their sessions, gives them the time, and ends them when the process stops."""

    def __init__(
        self,
        parts: SessionParts,
        limits: ClientLimits,
        presence: Presence,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._parts = parts
        self._limits = limits
        self._presence = presence
        self._clock = clock
        self._clients: dict[LiveClient, set[Session]] = {}
        self._ticker: asyncio.Task[None] | None = None
        self._is_stopping = False
        self._is_empty = asyncio.Event()
        parts.metrics.open_streams.set_function(lambda: len(self._clients))

    def start(self) -> None:
        """Begins to give clients the time."""
        self._ticker = asyncio.create_task(self._tick(), name="streams ticker")

    async def drain(self) -> None:
        """Ends every stream, and every one that is opened from now on; returns when the clients have been told, or
        after two seconds. They resume elsewhere."""
        self._is_stopping = True
        for client in list(self._clients):
            client.end(End.SHUTDOWN)
        if self._clients:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._is_empty.wait(), DRAIN_SECONDS)

    async def close(self) -> None:
        """Ends everything."""
        await self.drain()
        if self._ticker is not None:
            self._ticker.cancel()
            with suppress(asyncio.CancelledError):
                await self._ticker

    def admit(self, principal: Principal, encoding: Encoding) -> LiveClient:
        """A client that follows nothing yet. It must be released."""
        client = LiveClient(principal, encoding, self._limits, self._parts.metrics)
        self._clients[client] = set()
        self._is_empty.clear()
        self._presence.came(client.user_id)
        if self._is_stopping:
            client.end(End.SHUTDOWN)
        return client

    def release(self, client: LiveClient) -> None:
        """The client is gone, or has been told everything."""
        client.end(End.CLIENT_LEFT)
        for session in self._clients.pop(client):
            self._close(session)
        self._presence.went(client.user_id)
        if not self._clients:
            self._is_empty.set()

    async def open(self, client: LiveClient, subscription: Subscription, *, cursor: str | None) -> Session:
        """Follows one conversation, or all that the client is in now or joins later, from a cursor or from now.
        Whatever is accepted after this returns is delivered. Raises ConversationNotFound, LogUnavailable."""
        session = Session(client, subscription, self._parts)
        return await self._open(client, session, self._find_beginning(session, client.user_id, cursor))

    async def open_after(self, client: LiveClient, subscription: Subscription, *, after_seq: int | None) -> Session:
        """Follows one conversation from after a seq, or from now, without cursors. As `open` otherwise."""
        session = Session(client, subscription, self._parts, has_cursors=False)
        return await self._open(client, session, self._find_beginning_after(session, client.user_id, after_seq))

    def close_session(self, client: LiveClient, session: Session) -> None:
        """The client follows this no longer."""
        self._clients[client].discard(session)
        self._close(session)

    async def _open(self, client: LiveClient, session: Session, finding: Coroutine[Any, Any, Beginning]) -> Session:
        try:
            session.begin(await finding)
        except BaseException:
            self._close(session)
            raise
        self._clients[client].add(session)
        await session.store_base()
        return session

    def _close(self, session: Session) -> None:
        session.close()
        self._parts.hub.unwatch(session)

    async def _find_beginning(self, session: Session, user_id: str, cursor: str | None) -> Beginning:
        reads = self._parts.reads
        stays = await self._watch(session, user_id)
        base, known, is_lost = await self._resume(session, user_id, cursor)
        memberships = await reads.read_memberships(user_id, list(stays))
        if known is None:
            positions = {each: membership.end_seq for each, membership in memberships.items()}
            base = new_base(positions) if len(positions) > MAX_WITHOUT_BASE else None
        else:
            positions = {
                each: max(known.get(each, 0), membership.joined_seq - 1) for each, membership in memberships.items()
            }
        return Beginning(positions, memberships, base=base, is_resumed=known is not None, is_lost=is_lost)

    async def _find_beginning_after(self, session: Session, user_id: str, after_seq: int | None) -> Beginning:
        stays = await self._watch(session, user_id)
        memberships = await self._parts.reads.read_memberships(user_id, list(stays))
        positions = {
            each: membership.end_seq if after_seq is None else max(after_seq, membership.joined_seq - 1)
            for each, membership in memberships.items()
        }
        return Beginning(positions, memberships, is_resumed=after_seq is not None)

    async def _watch(self, session: Session, user_id: str) -> dict[str, Stay]:
        """Subscribe first, then read: what happens in between comes twice, and is told once."""
        hub, reads, conversation_id = self._parts.hub, self._parts.reads, session.subscription.conversation_id
        await hub.watch_user(session, user_id)
        if conversation_id is None:
            stays = await reads.read_user_conversations(user_id)
        else:
            membership = await reads.get_membership(conversation_id, user_id)
            stays = {conversation_id: Stay(membership.joined_seq, membership.left_seq)}
        await hub.watch_conversations(session, [each for each, stay in stays.items() if stay.left_seq is None])
        return stays

    async def _resume(
        self, session: Session, user_id: str, text: str | None
    ) -> tuple[Base | None, dict[str, int] | None, bool]:
        """The base and the positions behind a cursor, None without one; and whether there was one that says nothing
        (any more)."""
        if not text:
            return None, None, False
        try:
            cursor = decode_cursor(text, session.sealer)
            base = await self._parts.bases.load(cursor, user_id)
            known = resolve(cursor, base)
            if cursor.scope is Scope.ONE_CONVERSATION and session.subscription.conversation_id not in known:
                raise MalformedCursor("the cursor is of another stream")
        except (MalformedCursor, TablesUnavailable) as error:
            logger.info("A stream cannot be resumed: %s", error)
            return None, None, True
        return base, known, False

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = self._clock()
            for client, sessions in list(self._clients.items()):
                client.tick(now=now)
                for session in sessions:
                    session.tick()
