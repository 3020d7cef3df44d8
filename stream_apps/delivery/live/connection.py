"""One WebSocket: carries out what its client says. What the client is told is its sessions' business."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, assert_never

from schemas.tokens import Principal
from stream_apps.delivery.errors import ConversationNotFound
from stream_apps.delivery.live import commands
from stream_apps.delivery.live.client import End, LiveClient
from stream_apps.delivery.live.commands import FrameBudget, MalformedFrame
from stream_apps.delivery.live.encoding import Subscription
from stream_apps.delivery.live.frames import encode_line
from stream_apps.delivery.live.session import Session
from stream_apps.delivery.live.streams import Streams
from stream_apps.delivery.live.typing_notes import TypingNotes
from stream_apps.delivery.security import InsufficientScope, Unauthenticated
from stream_apps.log_reader import LogUnavailable

logger = logging.getLogger(__name__)

MAX_SUBSCRIPTIONS = 100


class Refused(Exception):
    """A frame is not carried out; `code` says why, for programs."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class Connection:
    """`authenticate` finds a token's principal, or raises Unauthenticated or InsufficientScope."""

    def __init__(
        self,
        client: LiveClient,
        streams: Streams,
        typing_notes: TypingNotes,
        authenticate: Callable[[str], Principal],
    ) -> None:
        self._client = client
        self._streams = streams
        self._typing_notes = typing_notes
        self._authenticate = authenticate
        self._loop = asyncio.get_running_loop()
        self._budget = FrameBudget(now=self._loop.time())
        self._sessions: dict[str | None, Session] = {}

    def welcome(self, *, expires_at: float, heartbeat_seconds: float) -> None:
        """The first thing that the client is told."""
        self._say("welcome", user_id=self._client.user_id, expires_at=expires_at, heartbeat_seconds=heartbeat_seconds)

    async def take(self, text: str) -> None:
        """Carries out a frame; its answer is pushed to the client."""
        if not self._budget.take(now=self._loop.time()):
            self._client.end(End.TOO_MANY_FRAMES)
            return
        try:
            frame = commands.parse_frame(text)
        except MalformedFrame as error:
            self._say("error", code="malformed", detail=str(error))
            return
        try:
            await self._carry_out(frame)
        except Refused as error:
            self._say_error(frame, error.code, str(error))
        except ConversationNotFound as error:
            self._say_error(frame, "conversation_not_found", error.detail)
        except LogUnavailable:
            self._say_error(frame, "unavailable", "This cannot be answered now; try again shortly.")
        except Exception:
            logger.exception("A WebSocket's frame could not be carried out")
            self._client.end(End.ERROR)

    async def _carry_out(self, frame: commands.AnyFrame) -> None:
        match frame:
            case commands.Subscribe():
                await self._subscribe(frame)
            case commands.Unsubscribe():
                self._unsubscribe(frame)
            case commands.TypingFrame():
                await self._typing_notes.tell(str(frame.conversation_id))
            case commands.Authenticate():
                self._renew(frame)
            case commands.Ping():
                self._say("pong", ref=frame.ref)
            case _:
                assert_never(frame)

    async def _subscribe(self, frame: commands.Subscribe) -> None:
        conversation_id = None if frame.conversation_id is None else str(frame.conversation_id)
        if conversation_id in self._sessions or None in self._sessions:
            raise Refused("already_subscribed", "This is told already; unsubscribe first to begin elsewhere.")
        if conversation_id is None and self._sessions:
            raise Refused("already_subscribed", "Single conversations are told; unsubscribe from them first.")
        if len(self._sessions) >= MAX_SUBSCRIPTIONS:
            raise Refused("too_many_subscriptions", f"One connection follows {MAX_SUBSCRIPTIONS} at the most.")
        subscription = Subscription(conversation_id, frame.ref)
        if conversation_id is None:
            session = await self._streams.open(self._client, subscription, cursor=frame.cursor)
        else:
            session = await self._streams.open_after(self._client, subscription, after_seq=frame.after_seq)
        self._sessions[conversation_id] = session

    def _unsubscribe(self, frame: commands.Unsubscribe) -> None:
        conversation_id = None if frame.conversation_id is None else str(frame.conversation_id)
        session = self._sessions.pop(conversation_id, None)
        if session is None:
            raise Refused("not_subscribed", "There is no such subscription.")
        self._streams.close_session(self._client, session)
        self._say("unsubscribed", ref=frame.ref, conversation_id=conversation_id)

    def _renew(self, frame: commands.Authenticate) -> None:
        try:
            principal = self._authenticate(frame.token)
        except Unauthenticated:
            self._client.end(End.UNAUTHENTICATED)
        except InsufficientScope:
            self._client.end(End.INSUFFICIENT_SCOPE)
        else:
            if principal.user_id != self._client.user_id:
                self._client.end(End.UNAUTHENTICATED)
                return
            self._client.renew(principal)
            self._say("authenticated", ref=frame.ref, expires_at=principal.expires_at)

    def _say_error(self, frame: commands.AnyFrame, code: str, detail: str) -> None:
        conversation_id = getattr(frame, "conversation_id", None)
        about = {} if conversation_id is None else {"conversation_id": str(conversation_id)}
        self._say("error", ref=frame.ref, code=code, detail=detail, **about)

    def _say(self, kind: str, *, ref: str | None = None, **fields: Any) -> None:
        self._client.push(encode_line(kind, ref=ref, **fields))
