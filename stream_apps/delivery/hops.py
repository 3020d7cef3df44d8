"""The hops of one message: when it came how far on its way, for whoever may read it."""

from __future__ import annotations

import time
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, Field

from schemas.passages import Passage, format_us
from stream_apps.delivery.errors import MessageNotFound, problems
from stream_apps.delivery.routes import PROBLEMS
from stream_apps.delivery.security import Caller
from stream_apps.delivery.state import Delivery
from stream_apps.delivery.tables import Tables, TablesUnavailable
from stream_apps.log_reader import Moments

router = APIRouter(prefix="/v1/conversations", tags=["conversations"])


class MessageHops(BaseModel):
    """When a message came how far. Each time is by the clock of the server that noted it. null: not there yet, or not
    known (any more)."""

    message_id: str
    seq: int
    traceparent: str | None = Field(description="The trace that the message belongs to (W3C Trace Context).")
    accepted_at: str = Field(description="It got its seq; the message's `created_at`.")
    committed_at: str | None = Field(description="Postgres committed it.")
    appended_at: str | None = Field(description="Kafka appended it. The milliseconds are cut off, not rounded.")
    applied_at: str | None = Field(description="The timeline app's tables took it, and live clients were told.")
    answered_at: str = Field(description="When this answer was made: for comparing clocks.")


@router.get(
    "/{conversation_id}/messages/{message_id}/hops",
    summary="When a message came how far on its way",
    responses={**PROBLEMS, **problems(MessageNotFound)},
)
async def get_hops(conversation_id: UUID, message_id: UUID, caller: Caller, delivery: Delivery) -> MessageHops:
    """For everyone who may read the message. Redis remembers the latter half, for as long as the message is among the
    conversation's newest 1,000 or so."""
    membership = await delivery.reads.get_membership(str(conversation_id), caller.user_id)
    moments = await delivery.log.find_moments(str(conversation_id), str(message_id))
    if moments is None or not membership.joined_seq <= moments.seq <= (membership.left_seq or moments.seq):
        raise MessageNotFound
    passage = await find_passage(delivery.tables, str(conversation_id), moments.seq)
    return make_hops(str(message_id), moments, passage, answered_us=time.time_ns() // 1000)


async def find_passage(tables: Tables, conversation_id: str, seq: int) -> Passage | None:
    """What Redis remembers; nothing if it does not answer."""
    try:
        return await tables.find_passage(conversation_id, seq)
    except TablesUnavailable:
        return None


def make_hops(message_id: str, moments: Moments, passage: Passage | None, *, answered_us: int) -> MessageHops:
    """What the caller is told. `answered_us` is microseconds since 1970."""
    appended_ms = None if passage is None else passage.appended_ms
    return MessageHops(
        message_id=message_id,
        seq=moments.seq,
        traceparent=moments.traceparent,
        accepted_at=format_us(moments.created_us),
        committed_at=None if moments.committed_us is None else format_us(moments.committed_us),
        appended_at=None if appended_ms is None else format_us(appended_ms * 1000),
        applied_at=None if passage is None else format_us(passage.applied_us),
        answered_at=format_us(answered_us),
    )
