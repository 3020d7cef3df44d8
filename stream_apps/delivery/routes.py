"""The routes that answer once: inbox, conversation, messages, events."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, Field

from stream_apps.delivery.errors import (
    ConversationNotFound,
    MalformedRequest,
    ReadsUnavailable,
    malformed,
    problems,
)
from stream_apps.delivery.history import MAX_SEQ, MessagePage, MessageQuery, read_page
from stream_apps.delivery.inbox import InboxPage, MalformedInboxCursor, make_page, read_lines
from stream_apps.delivery.security import Caller, InsufficientScope, Unauthenticated
from stream_apps.delivery.state import Delivery
from stream_apps.log_reader import LogEntry

router = APIRouter(prefix="/v1/conversations", tags=["conversations"])

COMMON_PROBLEMS = problems(Unauthenticated, InsufficientScope, MalformedRequest, ReadsUnavailable)
PROBLEMS = {**COMMON_PROBLEMS, **problems(ConversationNotFound)}

Limit = Annotated[int, Query(ge=1, le=200, description="The most that one page holds.")]
Seq = Annotated[int | None, Query(ge=0, lt=MAX_SEQ)]


class Conversation(BaseModel):
    """A conversation that the caller is in."""

    conversation_id: str
    title: str | None
    participants: list[str] = Field(description="User ids; who came first before who came later.")
    seq: int = Field(description="How far the conversation is.")


async def get_query(after_seq: Seq = None, before_seq: Seq = None, limit: Limit = 50) -> MessageQuery:
    """Which messages the caller asks for."""
    return MessageQuery(after_seq=after_seq, before_seq=before_seq, limit=limit)


@router.get("", summary="The caller's inbox", responses=COMMON_PROBLEMS)
async def get_inbox(
    caller: Caller,
    delivery: Delivery,
    limit: Limit = 50,
    cursor: Annotated[str | None, Query(max_length=200, description="`next` of the page before.")] = None,
) -> InboxPage:
    """The conversations that the caller is in, most recently active first."""
    lines = await read_lines(caller.user_id, reads=delivery.reads, tables=delivery.tables, log=delivery.log)
    try:
        return make_page(lines, limit=limit, cursor=cursor)
    except MalformedInboxCursor as error:
        raise malformed("query.cursor", "This is not a cursor that a page gave.") from error


@router.get("/{conversation_id}", summary="One conversation", responses=PROBLEMS)
async def get_conversation(conversation_id: UUID, caller: Caller, delivery: Delivery) -> Conversation:
    """Title, participants and how far it is."""
    details = await delivery.reads.get_conversation(str(conversation_id), caller.user_id)
    return Conversation(
        conversation_id=str(conversation_id),
        title=details.title,
        participants=list(details.participants),
        seq=details.last_seq,
    )


@router.get("/{conversation_id}/messages", summary="Messages, in seq order", responses=PROBLEMS)
async def get_messages(
    conversation_id: UUID,
    caller: Caller,
    delivery: Delivery,
    query: Annotated[MessageQuery, Depends(get_query)],
    min_seq: Annotated[
        int, Query(ge=0, lt=MAX_SEQ, description="The answer covers the conversation up to here: read your own write.")
    ] = 0,
) -> MessagePage:
    """The first messages after `after_seq`, or else the last ones before `before_seq`, or else the newest."""
    membership = await delivery.reads.get_membership(str(conversation_id), caller.user_id, min_seq=min_seq)
    return await read_page(delivery.reads, str(conversation_id), query, head_seq=membership.last_seq)


@router.get(
    "/{conversation_id}/events",
    summary="Log entries, as they are",
    responses={
        **PROBLEMS,
        200: {
            "description": "`events` in seq order, as schemas/json describes them; `next` is the `after_seq` of the "
            "page that follows, null when nothing follows yet.",
            "content": {"application/json": {"example": {"events": [], "next": None}}},
        },
    },
    response_class=Response,
)
async def get_events(
    conversation_id: UUID,
    caller: Caller,
    delivery: Delivery,
    after_seq: Annotated[int, Query(ge=0, lt=MAX_SEQ)] = 0,
    limit: Limit = 50,
) -> Response:
    """The first entries of the conversation's log after `after_seq`, of every type."""
    membership = await delivery.reads.get_membership(str(conversation_id), caller.user_id)
    entries = await delivery.reads.read_after(
        str(conversation_id), after_seq=after_seq, limit=limit + 1, head_seq=membership.last_seq
    )
    return Response(encode_events(entries, limit=limit), media_type="application/json")


def encode_events(entries: list[LogEntry], *, limit: int) -> bytes:
    """The page of these entries (one more than `limit` if there are more) with their payloads byte for byte."""
    shown = entries[:limit]
    following = b"%d" % shown[-1].seq if len(entries) > limit else b"null"
    return b'{"events":[' + b",".join(entry.payload for entry in shown) + b'],"next":' + following + b"}"
