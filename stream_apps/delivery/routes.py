"""The routes that answer once: inbox, conversation, messages, events."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from pydantic import BaseModel, Field

from stream_apps.delivery.answers import answer_json
from stream_apps.delivery.errors import (
    ConversationNotFound,
    MalformedRequest,
    ReadsUnavailable,
    malformed,
    problems,
)
from stream_apps.delivery.history import MAX_SEQ, MessagePage, MessageQuery, read_page
from stream_apps.delivery.inbox import (
    InboxPage,
    MalformedInboxCursor,
    choose_lines,
    count_unread,
    make_page,
    read_lines,
)
from stream_apps.delivery.security import Caller, InsufficientScope, Unauthenticated
from stream_apps.delivery.state import Delivery
from stream_apps.delivery.tables import TablesUnavailable
from stream_apps.log_reader import LogEntry

router = APIRouter(prefix="/v1/conversations", tags=["conversations"])

COMMON_PROBLEMS = problems(Unauthenticated, InsufficientScope, MalformedRequest, ReadsUnavailable)
PROBLEMS = {**COMMON_PROBLEMS, **problems(ConversationNotFound)}

Limit = Annotated[int, Query(ge=1, le=200, description="The most that one page holds.")]
IfNoneMatch = Annotated[
    str | None, Header(alias="If-None-Match", description="`ETag` of the answer that the client has.")
]
NOT_MODIFIED: dict[int | str, dict[str, Any]] = {
    304: {"description": "The answer is the one that `If-None-Match` names."}
}
Seq = Annotated[int | None, Query(ge=0, lt=MAX_SEQ)]


class Participant(BaseModel):
    """Someone who is or was in the conversation."""

    user_id: str
    role: str
    joined_seq: int = Field(description="What comes from here on is the participant's to see.")
    left_seq: int | None = Field(description="The last seq that is; null as long as the participant is in it.")


class ReceiptState(BaseModel):
    """How far a participant has received and read."""

    user_id: str
    delivered_seq: int
    read_seq: int


class Conversation(BaseModel):
    """A conversation that the caller is in; or that it was in, as it was then."""

    conversation_id: str
    title: str | None
    participants: list[Participant] = Field(description="Who came first before who came later.")
    receipts: list[ReceiptState] = Field(description="Of those who have sent one.")
    seq: int = Field(description="How far the conversation is for the caller.")


class OnlineParticipants(BaseModel):
    """Who is online."""

    online: list[str] = Field(description="User ids.")


async def get_query(after_seq: Seq = None, before_seq: Seq = None, limit: Limit = 50) -> MessageQuery:
    """Which messages the caller asks for."""
    return MessageQuery(after_seq=after_seq, before_seq=before_seq, limit=limit)


@router.get("", summary="The caller's inbox", response_model=InboxPage, responses={**COMMON_PROBLEMS, **NOT_MODIFIED})
async def get_inbox(
    request: Request,
    caller: Caller,
    delivery: Delivery,
    limit: Limit = 50,
    cursor: Annotated[str | None, Query(max_length=200, description="`next` of the page before.")] = None,
    _: IfNoneMatch = None,
) -> Response:
    """The conversations that the caller is in or has left, most recently active first."""
    lines = await read_lines(caller.user_id, reads=delivery.reads, tables=delivery.tables, log=delivery.log)
    try:
        shown, following = choose_lines(lines, limit=limit, cursor=cursor)
    except MalformedInboxCursor as error:
        raise malformed("query.cursor", "This is not a cursor that a page gave.") from error
    unread = await count_unread(caller.user_id, shown, tables=delivery.tables, log=delivery.log)
    return answer_json(request, make_page(shown, unread, following).model_dump_json().encode())


@router.get(
    "/{conversation_id}",
    summary="One conversation",
    response_model=Conversation,
    responses={**PROBLEMS, **NOT_MODIFIED},
)
async def get_conversation(
    request: Request, conversation_id: UUID, caller: Caller, delivery: Delivery, _: IfNoneMatch = None
) -> Response:
    """Title, participants, receipts and how far it is."""
    details = await delivery.reads.get_conversation(str(conversation_id), caller.user_id)
    found = Conversation(
        conversation_id=str(conversation_id),
        title=details.title,
        participants=[Participant(user_id=user_id, **stay._asdict()) for user_id, stay in details.participants.items()],
        receipts=[
            ReceiptState(user_id=user_id, **details.receipts[user_id]._asdict())
            for user_id in details.participants
            if user_id in details.receipts
        ],
        seq=details.last_seq,
    )
    return answer_json(request, found.model_dump_json().encode())


@router.get("/{conversation_id}/presence", summary="Who is online", responses=PROBLEMS)
async def get_presence(conversation_id: UUID, caller: Caller, delivery: Delivery) -> OnlineParticipants:
    """Those participants who have a live client now. Empty while that cannot be known."""
    details = await delivery.reads.get_conversation(str(conversation_id), caller.user_id)
    present = [user_id for user_id, stay in details.participants.items() if stay.left_seq is None]
    if caller.user_id not in present:
        return OnlineParticipants(online=[])
    try:
        return OnlineParticipants(online=await delivery.presence.find_online(present))
    except TablesUnavailable:
        return OnlineParticipants(online=[])


@router.get(
    "/{conversation_id}/messages",
    summary="Messages, in seq order",
    response_model=MessagePage,
    responses={**PROBLEMS, **NOT_MODIFIED},
)
async def get_messages(
    request: Request,
    conversation_id: UUID,
    caller: Caller,
    delivery: Delivery,
    query: Annotated[MessageQuery, Depends(get_query)],
    min_seq: Annotated[
        int, Query(ge=0, lt=MAX_SEQ, description="The answer covers the conversation up to here: read your own write.")
    ] = 0,
    _: IfNoneMatch = None,
) -> Response:
    """The first messages after `after_seq`, or else the last ones before `before_seq`, or else the newest."""
    membership = await delivery.reads.get_membership(str(conversation_id), caller.user_id, min_seq=min_seq)
    page = await read_page(delivery.reads, str(conversation_id), query, membership=membership)
    return answer_json(request, page.model_dump_json().encode())


@router.get(
    "/{conversation_id}/events",
    summary="Log entries, as they are",
    responses={
        **PROBLEMS,
        **NOT_MODIFIED,
        200: {
            "description": "`events` in seq order, as schemas/json describes them; `next` is the `after_seq` of the "
            "page that follows, null when nothing follows yet.",
            "content": {"application/json": {"example": {"events": [], "next": None}}},
        },
    },
    response_class=Response,
)
async def get_events(
    request: Request,
    conversation_id: UUID,
    caller: Caller,
    delivery: Delivery,
    after_seq: Annotated[int, Query(ge=0, lt=MAX_SEQ)] = 0,
    limit: Limit = 50,
    _: IfNoneMatch = None,
) -> Response:
    """The first entries of the conversation's log after `after_seq`, of every type, that are the caller's to see."""
    membership = await delivery.reads.get_membership(str(conversation_id), caller.user_id)
    found = await delivery.reads.read_after(
        str(conversation_id),
        after_seq=max(after_seq, membership.joined_seq - 1),
        limit=limit + 1,
        head_seq=membership.end_seq,
    )
    entries = [entry for entry in found if entry.seq <= membership.end_seq]
    return answer_json(request, encode_events(entries, limit=limit))


def encode_events(entries: list[LogEntry], *, limit: int) -> bytes:
    """The page of these entries (one more than `limit` if there are more) with their payloads byte for byte."""
    shown = entries[:limit]
    following = b"%d" % shown[-1].seq if len(entries) > limit else b"null"
    return b'{"events":[' + b",".join(entry.payload for entry in shown) + b'],"next":' + following + b"}"
