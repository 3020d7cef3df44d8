"""Conversations over HTTP."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from ingest_api.command_route import CommandRoute
from ingest_api.conversations import commands
from ingest_api.conversations.model import CreateConversation, CreatedConversation
from ingest_api.errors import BodyTooLarge, DatabaseUnavailable, MalformedRequest, problems
from ingest_api.log_writer import EventIdTaken
from ingest_api.replays import REPLAY, mark_replay
from ingest_api.security.principals import Caller, InsufficientScope, Unauthenticated
from ingest_api.state import Chat
from ingest_api.telemetry import trace_context

router = APIRouter(route_class=CommandRoute, prefix="/v1/conversations", tags=["conversations"])


@router.post(
    "",
    status_code=201,
    summary="Create a conversation",
    responses={
        **REPLAY,
        **problems(
            Unauthenticated,
            InsufficientScope,
            EventIdTaken,
            commands.UnknownParticipants,
            MalformedRequest,
            BodyTooLarge,
            DatabaseUnavailable,
        ),
    },
)
async def create_conversation(
    command: CreateConversation, caller: Caller, chat: Chat, request: Request, response: Response
) -> CreatedConversation:
    """Creates a conversation with these participants and the caller."""
    conversation, is_replay = await commands.create_conversation(
        chat,
        command,
        actor_id=caller.user_id,
        traceparent=trace_context(request.headers.get("traceparent")),
    )
    mark_replay(response, is_replay)
    return conversation
