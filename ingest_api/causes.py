"""The cause of a log entry: who asks for it, under which id, in which trace."""

from __future__ import annotations

from typing import Annotated, NamedTuple
from uuid import UUID

from fastapi import Depends, Header, Request

from ingest_api.fields import new_id
from ingest_api.security.principals import Caller
from ingest_api.telemetry import trace_context


class EventCause(NamedTuple):
    """`event_id` is the `Idempotency-Key` that the client chose, or a new one."""

    actor_id: str
    event_id: str
    traceparent: str


async def get_cause(
    request: Request,
    caller: Caller,
    idempotency_key: Annotated[
        UUID | None,
        Header(
            description="Chosen by the client so that a retry changes nothing twice: the event's id.",
            examples=["018f3c1e-7b1a-7c3e-9d2f-5a6b7c8d9e0f"],
        ),
    ] = None,
) -> EventCause:
    """The cause of what this request asks for."""
    event_id = str(idempotency_key) if idempotency_key else new_id()
    return EventCause(caller.user_id, event_id, trace_context(request.headers.get("traceparent")))


Cause = Annotated[EventCause, Depends(get_cause)]
