"""What creating and changing a conversation takes and gives, and the events."""

from __future__ import annotations

from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from ingest_api.fields import CommandModel, StorableText
from ingest_api.log_writer import NewEntry, new_entry
from schemas.events import MAX_TITLE_LENGTH, Role

MAX_PARTICIPANTS = 1000


class CreateConversation(CommandModel):
    """Creates a conversation. The caller becomes a participant (its admin) without being named."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"title": "hello", "participants": []}]},
    )

    conversation_id: UUID | None = Field(
        default=None,
        description="Chosen by the client so that a retry creates nothing twice; else the server's.",
    )
    title: StorableText | None = Field(default=None, min_length=1, max_length=MAX_TITLE_LENGTH)
    participants: list[UUID] = Field(default_factory=list, max_length=MAX_PARTICIPANTS)


class CreatedConversation(BaseModel):
    """The conversation as it was created."""

    conversation_id: str
    seq: int
    title: str | None
    participants: list[str]
    created_at: str


class ChangeTitle(CommandModel):
    """Gives the conversation another title; null removes it."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"title": "hello again"}, {"title": None}]})

    title: StorableText | None = Field(min_length=1, max_length=MAX_TITLE_LENGTH)


class AddParticipant(CommandModel):
    """Brings a user into the conversation."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"user_id": "018f3c1e-7b1a-7c3e-9d2f-5a6b7c8d9e0f", "role": "member"}]}
    )

    user_id: UUID
    role: Role = "member"


class ChangedConversation(BaseModel):
    """Where the change stands."""

    conversation_id: str
    seq: int
    created_at: str


class ChangedParticipant(ChangedConversation):
    """Where a participant joined or left."""

    user_id: str


def participants_of(command: CreateConversation, actor_id: str) -> list[str]:
    """Everyone in the conversation, each once: the creator first, then in the order in which they were named."""
    return list(dict.fromkeys([actor_id, *map(str, command.participants)]))


def created_entry(command: CreateConversation, conversation_id: str, actor_id: str, traceparent: str) -> NewEntry:
    """The log entry of the creation. Its event id is the conversation's: there is one creation."""
    return new_entry(
        event_id=conversation_id,
        type="ConversationCreated",
        conversation_id=conversation_id,
        actor_id=actor_id,
        traceparent=traceparent,
        title=command.title,
        participants=participants_of(command, actor_id),
    )
