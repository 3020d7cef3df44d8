"""The events: what happened in a conversation, as stored in `conversation_log.payload` and carried by Kafka.

The stored JSON text is the event's only form. It is written once, by Postgres (seq and created_at are known only
there), and is passed on byte for byte; these models describe it, and parse it where a reader needs its fields.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

MAX_TITLE_LENGTH = 200
MAX_TEXT_LENGTH = 16_000


class Event(BaseModel):
    """What every event has. `seq` is dense within the conversation and starts at 1; `created_at` is in UTC."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    seq: int = Field(ge=1)
    created_at: datetime
    event_id: UUID
    conversation_id: UUID
    actor_id: UUID


class TextBody(BaseModel):
    """Plain text, as a person wrote it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["text"]
    text: str = Field(min_length=1, max_length=MAX_TEXT_LENGTH)


class ConversationCreated(Event):
    """A conversation began, with these participants (the creator is one of them). Always seq 1."""

    type: Literal["ConversationCreated"]
    title: str | None = Field(default=None, max_length=MAX_TITLE_LENGTH)
    participants: list[UUID]


class MessageSent(Event):
    """A participant wrote a message. Its `event_id` is the message's id."""

    type: Literal["MessageSent"]
    message_id: UUID
    body: TextBody
    reply_to: UUID | None = None


AnyEvent = Annotated[ConversationCreated | MessageSent, Field(discriminator="type")]

EVENT_TYPES: dict[str, type[Event]] = {
    "ConversationCreated": ConversationCreated,
    "MessageSent": MessageSent,
}

_ANY_EVENT: TypeAdapter[ConversationCreated | MessageSent] = TypeAdapter(AnyEvent)


def parse_event(payload: bytes | str) -> ConversationCreated | MessageSent:
    """The event in a payload of a known type. Raises pydantic.ValidationError."""
    return _ANY_EVENT.validate_json(payload)
