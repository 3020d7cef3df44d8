"""`GET /v1/stream`: live events as Server-Sent Events."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, Query, Response
from starlette.types import Receive, Scope, Send

from stream_apps.delivery.errors import ConversationNotFound, MalformedRequest, ReadsUnavailable, problems
from stream_apps.delivery.live.carrying import carry
from stream_apps.delivery.live.client import LiveClient
from stream_apps.delivery.live.commands import MAX_CURSOR_LENGTH
from stream_apps.delivery.live.encoding import Subscription
from stream_apps.delivery.live.streams import Streams
from stream_apps.delivery.security import Caller, InsufficientScope, Unauthenticated
from stream_apps.delivery.sse import SSE
from stream_apps.delivery.state import Delivery

router = APIRouter(prefix="/v1", tags=["live"])


class EventStream(Response):
    """Sends a client's chunks until its stream ends or it leaves; then releases it."""

    media_type = "text/event-stream"

    def __init__(self, client: LiveClient, streams: Streams) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._client = client
        self._streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_chunk(chunk: bytes) -> None:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})

        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            if await carry(self._client, send_chunk, _wait_for_disconnect(receive)):
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._streams.release(self._client)


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
            "(null: in any) must be fetched. `goodbye` comes last. docs/live.md says more.",
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
    subscription = Subscription(None if conversation_id is None else str(conversation_id))
    client = delivery.streams.admit(caller, SSE)
    try:
        await delivery.streams.open(client, subscription, cursor=last_event_id_header or last_event_id)
    except BaseException:
        delivery.streams.release(client)
        raise
    return EventStream(client, delivery.streams)
