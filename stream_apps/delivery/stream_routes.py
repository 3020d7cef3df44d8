"""`GET /v1/stream`: live events as Server-Sent Events."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Header, Query, Response
from starlette.types import Receive, Scope, Send

from stream_apps.delivery.errors import ConversationNotFound, MalformedRequest, ReadsUnavailable, problems
from stream_apps.delivery.live.session import Session
from stream_apps.delivery.live.streams import Streams
from stream_apps.delivery.security import Caller, InsufficientScope, Unauthenticated
from stream_apps.delivery.state import Delivery

router = APIRouter(prefix="/v1", tags=["live"])

FAREWELL_SECONDS = 1.0
MAX_CURSOR_LENGTH = 16_000


class EventStream(Response):
    """Sends a session's chunks until it ends or the client leaves; then releases it. A client that does not take
    its last chunk in time is cut off."""

    media_type = "text/event-stream"

    def __init__(self, session: Session, streams: Streams) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._session = session
        self._streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.create_task(self._send_chunks(send))
        leaving = asyncio.create_task(_wait_for_disconnect(receive))
        try:
            done_first: set[asyncio.Future[Any]] = {sending, leaving, self._session.ended}
            await asyncio.wait(done_first, return_when=asyncio.FIRST_COMPLETED)
            if not leaving.done():
                await asyncio.wait({sending, leaving}, timeout=FAREWELL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._streams.release(self._session)
            for task in (sending, leaving):
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    async def _send_chunks(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        while (chunk := await self._session.next_chunk()) is not None:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


@router.get(
    "/stream",
    summary="Live events",
    response_class=Response,
    responses={
        **problems(Unauthenticated, InsufficientScope, ConversationNotFound, MalformedRequest, ReadsUnavailable),
        200: {
            "description": "Server-Sent Events. `ready` comes first. Then `event` is an event's type, `data` the event "
            "as it was stored, `id` an opaque cursor. `gap` says that what came after `after_seq` in `conversation_id` "
            "(null: in any) must be fetched.",
            "content": {"text/event-stream": {"example": 'event: ready\ndata: {"resumed": false}\nid: AQAB\n\n'}},
        },
    },
)
async def get_stream(
    caller: Caller,
    delivery: Delivery,
    conversation_id: Annotated[UUID | None, Query(description="Only this conversation.")] = None,
    last_event_id: Annotated[
        str | None, Query(max_length=MAX_CURSOR_LENGTH, description="For clients that cannot set the header.")
    ] = None,
    last_event_id_header: Annotated[
        str | None,
        Header(alias="Last-Event-ID", max_length=MAX_CURSOR_LENGTH, description="Goes on after this `id`."),
    ] = None,
) -> Response:
    """Events of every conversation that the caller is in or joins later, each once and in seq order; from now on, or
    from where `Last-Event-ID` says. The stream ends when the access token expires."""
    session = await delivery.streams.open(
        caller,
        conversation_id=None if conversation_id is None else str(conversation_id),
        last_event_id=last_event_id_header or last_event_id,
    )
    return EventStream(session, delivery.streams)
