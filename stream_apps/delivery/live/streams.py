"""All live streams of this process: how one is opened and resumed, and how all of them end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress

from schemas.redis_keys import Stay
from schemas.tokens import Principal
from stream_apps.delivery.live.bases import new_base
from stream_apps.delivery.live.cursors import (
    MAX_WITHOUT_BASE,
    Base,
    MalformedCursor,
    Scope,
    decode_cursor,
    resolve,
)
from stream_apps.delivery.live.session import Session, SessionParts
from stream_apps.delivery.tables import TablesUnavailable

logger = logging.getLogger(__name__)

TICK_SECONDS = 1.0


class Streams:
    """Opens sessions, gives them the time, and ends them when the process stops."""

    def __init__(self, parts: SessionParts, *, clock: Callable[[], float] = time.time) -> None:
        self._parts = parts
        self._clock = clock
        self._sessions: set[Session] = set()
        self._ticker: asyncio.Task[None] | None = None
        self._is_stopping = False
        parts.metrics.open_streams.set_function(lambda: len(self._sessions))

    def start(self) -> None:
        """Begins to give sessions the time."""
        self._ticker = asyncio.create_task(self._tick(), name="streams ticker")

    def end_all(self) -> None:
        """Ends every stream, and every one that is opened from now on. Clients resume elsewhere."""
        self._is_stopping = True
        for session in list(self._sessions):
            session.end("shutdown")

    async def close(self) -> None:
        """Ends everything."""
        self.end_all()
        if self._ticker is not None:
            self._ticker.cancel()
            with suppress(asyncio.CancelledError):
                await self._ticker

    async def open(self, principal: Principal, *, conversation_id: str | None, last_event_id: str | None) -> Session:
        """A stream of one conversation, or of all that the caller is in now or joins later. Whatever is accepted
        after this returns is delivered. Raises ConversationNotFound, LogUnavailable."""
        session = Session(principal, self._parts, conversation_id=conversation_id)
        try:
            await self._begin(session, principal, conversation_id, last_event_id)
        except BaseException:
            self._parts.hub.unwatch(session)
            raise
        self._sessions.add(session)
        if self._is_stopping:
            session.end("shutdown")
        return session

    def release(self, session: Session) -> None:
        """The client is gone, or has been told everything."""
        session.end("client_left")
        self._parts.hub.unwatch(session)
        self._sessions.discard(session)

    async def _begin(
        self, session: Session, principal: Principal, conversation_id: str | None, last_event_id: str | None
    ) -> None:
        hub, reads, user_id = self._parts.hub, self._parts.reads, principal.user_id
        # Subscribe first, then read: what happens in between comes twice, and is told once.
        await hub.watch_user(session, user_id)
        if conversation_id is None:
            stays = await reads.read_user_conversations(user_id)
        else:
            membership = await reads.get_membership(conversation_id, user_id)
            stays = {conversation_id: Stay(membership.joined_seq, membership.left_seq)}
        await hub.watch_conversations(session, [each for each, stay in stays.items() if stay.left_seq is None])
        base, known, is_lost = await self._resume(principal, last_event_id, conversation_id)
        memberships = await reads.read_memberships(user_id, list(stays))
        if known is None:
            positions = {each: membership.end_seq for each, membership in memberships.items()}
            base = new_base(positions) if len(positions) > MAX_WITHOUT_BASE else None
        else:
            positions = {
                each: max(known.get(each, 0), membership.joined_seq - 1) for each, membership in memberships.items()
            }
        session.begin(positions, memberships, base=base, is_resumed=known is not None, is_lost=is_lost)
        await session.store_base()

    async def _resume(
        self, principal: Principal, last_event_id: str | None, conversation_id: str | None
    ) -> tuple[Base | None, dict[str, int] | None, bool]:
        """The base and the positions behind a cursor, None without one; and whether there was one that says nothing
        (any more)."""
        if not last_event_id:
            return None, None, False
        try:
            cursor = decode_cursor(last_event_id)
            base = await self._parts.bases.load(cursor, principal.user_id)
            known = resolve(cursor, base)
            if cursor.scope is Scope.ONE_CONVERSATION and conversation_id not in known:
                raise MalformedCursor("the cursor is of another stream")
        except (MalformedCursor, TablesUnavailable) as error:
            logger.info("A stream cannot be resumed: %s", error)
            return None, None, True
        return base, known, False

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = self._clock()
            for session in list(self._sessions):
                session.tick(now=now)
