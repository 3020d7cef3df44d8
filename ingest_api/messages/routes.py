"""Messages over HTTP."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter, Request, Response

from ingest_api.causes import Cause
from ingest_api.command_route import REFUSALS, CommandRoute
from ingest_api.errors import BodyTooLarge, ConversationNotFound, DatabaseUnavailable, MalformedRequest, problems
from ingest_api.log_writer import (
    EventIdTaken,
    MessageAlreadyDeleted,
    MessageNotFound,
    NotAllowed,
    OutcomeUnknown,
    UnknownReply,
    WriterSaturated,
)
from ingest_api.messages import commands
from ingest_api.messages.model import BatchResults, EditMessage, SendBatch, SendMessage, SentMessage
from ingest_api.replays import REPLAY, mark_replay
from ingest_api.security.principals import Caller
from ingest_api.state import Chat
from ingest_api.telemetry import trace_context

router = APIRouter(route_class=CommandRoute, prefix="/v1/conversations/{conversation_id}/messages", tags=["messages"])
batch_router = APIRouter(route_class=CommandRoute, prefix="/v1/messages", tags=["messages"])

_ALWAYS = (
    *REFUSALS,
    MalformedRequest,
    BodyTooLarge,
    WriterSaturated,
    DatabaseUnavailable,
    OutcomeUnknown,
)


@router.post(
    "",
    status_code=201,
    summary="Send a message",
    responses={**REPLAY, **problems(*_ALWAYS, ConversationNotFound, EventIdTaken, UnknownReply)},
)
async def send_message(
    conversation_id: UUID,
    command: SendMessage,
    caller: Caller,
    chat: Chat,
    request: Request,
    response: Response,
) -> SentMessage:
    """Accepts a message: when this answers 2xx the message is stored, and has its place in the conversation."""
    message_id, appended = await commands.send_message(
        chat.writer,
        command,
        conversation_id=str(conversation_id),
        actor_id=caller.user_id,
        traceparent=trace_context(request.headers.get("traceparent")),
    )
    mark_replay(response, appended.is_replay)
    return SentMessage(
        message_id=message_id,
        conversation_id=str(conversation_id),
        seq=appended.seq,
        created_at=appended.created_at,
    )


@router.patch(
    "/{message_id}",
    summary="Edit a message",
    responses={
        **REPLAY,
        **problems(*_ALWAYS, ConversationNotFound, MessageNotFound, NotAllowed, MessageAlreadyDeleted, EventIdTaken),
    },
)
async def edit_message(
    conversation_id: UUID,
    message_id: UUID,
    command: EditMessage,
    cause: Cause,
    chat: Chat,
    response: Response,
) -> SentMessage:
    """Gives the message another body: its sender may, and an admin of the conversation. `seq` is the edit's."""
    appended = await commands.change_message(
        chat.writer,
        cause,
        conversation_id=str(conversation_id),
        message_id=str(message_id),
        body=command.body,
    )
    mark_replay(response, appended.is_replay)
    return SentMessage(
        message_id=str(message_id),
        conversation_id=str(conversation_id),
        seq=appended.seq,
        created_at=appended.created_at,
    )


@router.delete(
    "/{message_id}",
    summary="Delete a message",
    responses={**REPLAY, **problems(*_ALWAYS, ConversationNotFound, MessageNotFound, NotAllowed, EventIdTaken)},
)
async def delete_message(
    conversation_id: UUID,
    message_id: UUID,
    cause: Cause,
    chat: Chat,
    response: Response,
) -> SentMessage:
    """Deletes the message: its sender may, and an admin of the conversation. `seq` is the deletion's, also when it was
    deleted before."""
    appended = await commands.change_message(
        chat.writer,
        cause,
        conversation_id=str(conversation_id),
        message_id=str(message_id),
        body=None,
    )
    mark_replay(response, appended.is_replay)
    return SentMessage(
        message_id=str(message_id),
        conversation_id=str(conversation_id),
        seq=appended.seq,
        created_at=appended.created_at,
    )


@batch_router.post("/batch", summary="Send several messages", responses=problems(*_ALWAYS))
async def send_batch(command: SendBatch, caller: Caller, chat: Chat, request: Request) -> BatchResults:
    """Accepts messages item by item: the result of each is what it alone would have been answered with."""
    return await commands.send_batch(
        chat.writer,
        command,
        actor_id=caller.user_id,
        traceparent=trace_context(request.headers.get("traceparent")),
    )
