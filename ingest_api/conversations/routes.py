"""Conversations over HTTP."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter, Request, Response

from ingest_api.causes import Cause
from ingest_api.command_route import REFUSALS, CommandRoute
from ingest_api.conversations import commands
from ingest_api.conversations.model import (
    AddParticipant,
    ChangedConversation,
    ChangedParticipant,
    ChangeTitle,
    CreateConversation,
    CreatedConversation,
)
from ingest_api.errors import BodyTooLarge, ConversationNotFound, DatabaseUnavailable, MalformedRequest, problems
from ingest_api.log_writer import (
    EventIdTaken,
    NotAllowed,
    OutcomeUnknown,
    ParticipantNotFound,
    UnknownParticipants,
    WriterSaturated,
)
from ingest_api.replays import REPLAY, mark_replay
from ingest_api.security.principals import Caller
from ingest_api.state import Chat
from ingest_api.telemetry import trace_context

router = APIRouter(route_class=CommandRoute, prefix="/v1/conversations", tags=["conversations"])

_CHANGE = (
    *REFUSALS,
    NotAllowed,
    ConversationNotFound,
    EventIdTaken,
    MalformedRequest,
    BodyTooLarge,
    WriterSaturated,
    DatabaseUnavailable,
    OutcomeUnknown,
)


@router.post(
    "",
    status_code=201,
    summary="Create a conversation",
    responses={
        **REPLAY,
        **problems(
            *REFUSALS,
            EventIdTaken,
            UnknownParticipants,
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


@router.patch("/{conversation_id}", summary="Change a conversation's title", responses={**REPLAY, **problems(*_CHANGE)})
async def change_title(
    conversation_id: UUID,
    command: ChangeTitle,
    cause: Cause,
    chat: Chat,
    response: Response,
) -> ChangedConversation:
    """Gives the conversation another title, or none. Only an admin may."""
    appended = await commands.change_conversation(
        chat, cause, str(conversation_id), type="TitleChanged", fields={"title": command.title}
    )
    mark_replay(response, appended.is_replay)
    return ChangedConversation(conversation_id=str(conversation_id), seq=appended.seq, created_at=appended.created_at)


@router.post(
    "/{conversation_id}/participants",
    status_code=201,
    summary="Add a participant",
    responses={**REPLAY, **problems(*_CHANGE, UnknownParticipants)},
)
async def add_participant(
    conversation_id: UUID,
    command: AddParticipant,
    cause: Cause,
    chat: Chat,
    response: Response,
) -> ChangedParticipant:
    """Brings a user into the conversation (again). Only an admin may. Who is in it already stays where they joined."""
    user_id = str(command.user_id)
    appended = await commands.change_conversation(
        chat, cause, str(conversation_id), type="ParticipantJoined", fields={"user_id": user_id, "role": command.role}
    )
    mark_replay(response, appended.is_replay)
    return ChangedParticipant(
        conversation_id=str(conversation_id), user_id=user_id, seq=appended.seq, created_at=appended.created_at
    )


@router.delete(
    "/{conversation_id}/participants/{user_id}",
    summary="Leave, or remove a participant",
    responses={**REPLAY, **problems(*_CHANGE, ParticipantNotFound)},
)
async def remove_participant(
    conversation_id: UUID,
    user_id: UUID,
    cause: Cause,
    chat: Chat,
    response: Response,
) -> ChangedParticipant:
    """Takes a user out of the conversation: oneself, or (an admin) anyone. When the last admin leaves, the
    longest-standing participant becomes admin."""
    appended = await commands.change_conversation(
        chat, cause, str(conversation_id), type="ParticipantLeft", fields={"user_id": str(user_id)}
    )
    mark_replay(response, appended.is_replay)
    return ChangedParticipant(
        conversation_id=str(conversation_id), user_id=str(user_id), seq=appended.seq, created_at=appended.created_at
    )
