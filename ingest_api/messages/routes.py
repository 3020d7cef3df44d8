"""Messages over HTTP."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter, Request, Response

from ingest_api.command_route import CommandRoute
from ingest_api.errors import BodyTooLarge, ConversationNotFound, DatabaseUnavailable, MalformedRequest, problems
from ingest_api.log_writer import EventIdTaken, OutcomeUnknown, UnknownReply, WriterSaturated
from ingest_api.messages import commands
from ingest_api.messages.model import SendMessage, SentMessage
from ingest_api.replays import REPLAY, mark_replay
from ingest_api.security.principals import Caller, InsufficientScope, Unauthenticated
from ingest_api.state import Chat
from ingest_api.telemetry import trace_context

router = APIRouter(route_class=CommandRoute, prefix="/v1/conversations/{conversation_id}/messages", tags=["messages"])


@router.post(
    "",
    status_code=201,
    summary="Send a message",
    responses={
        **REPLAY,
        **problems(
            Unauthenticated,
            InsufficientScope,
            ConversationNotFound,
            EventIdTaken,
            UnknownReply,
            MalformedRequest,
            BodyTooLarge,
            WriterSaturated,
            DatabaseUnavailable,
            OutcomeUnknown,
        ),
    },
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
