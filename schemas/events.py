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
MAX_URL_LENGTH = 2_000
MAX_FILE_NAME_LENGTH = 255


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


class FileBody(BaseModel):
    """An attachment by reference: where the file is, and how to tell that it is the one that was meant."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["file"]
    url: str = Field(min_length=1, max_length=MAX_URL_LENGTH)
    name: str = Field(min_length=1, max_length=MAX_FILE_NAME_LENGTH)
    size: int = Field(ge=0, description="Bytes.")
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


MessageBody = Annotated[TextBody | FileBody, Field(discriminator="type")]
Role = Literal["member", "admin"]


class ConversationCreated(Event):
    """A conversation began, with these participants (the creator is one of them, and its admin). Always seq 1."""

    type: Literal["ConversationCreated"]
    title: str | None = Field(default=None, max_length=MAX_TITLE_LENGTH)
    participants: list[UUID]


class MessageSent(Event):
    """A participant wrote a message. Its `event_id` is the message's id."""

    type: Literal["MessageSent"]
    message_id: UUID
    body: MessageBody
    reply_to: UUID | None = None


class MessageEdited(Event):
    """A message has another body from now on."""

    type: Literal["MessageEdited"]
    message_id: UUID
    body: MessageBody


class MessageDeleted(Event):
    """A message is to be shown no longer. (The log keeps what was written.)"""

    type: Literal["MessageDeleted"]
    message_id: UUID


class ParticipantJoined(Event):
    """`actor_id` brought `user_id` into the conversation; it sees what comes from this seq on."""

    type: Literal["ParticipantJoined"]
    user_id: UUID
    role: Role


class ParticipantLeft(Event):
    """`user_id` left, or was removed by `actor_id`; this event is the last one that it sees. If it was the last admin,
    `successor_id`, the longest-standing participant, is admin from now on."""

    type: Literal["ParticipantLeft"]
    user_id: UUID
    successor_id: UUID | None = None


class TitleChanged(Event):
    """The conversation has another title; none, if `title` is null."""

    type: Literal["TitleChanged"]
    title: str | None = Field(max_length=MAX_TITLE_LENGTH)


class ReceiptAdvanced(BaseModel):
    """How far a participant has received and read. No log entry, so it has no seq of its own: both numbers are maxima
    that only ever grow, and a reader keeps the larger ones."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    type: Literal["ReceiptAdvanced"]
    event_id: UUID
    conversation_id: UUID
    user_id: UUID
    delivered_seq: int = Field(ge=0)
    read_seq: int = Field(ge=0)
    created_at: datetime


LogEvent = (
    ConversationCreated
    | MessageSent
    | MessageEdited
    | MessageDeleted
    | ParticipantJoined
    | ParticipantLeft
    | TitleChanged
)

EVENT_TYPES: dict[str, type[Event]] = {
    "ConversationCreated": ConversationCreated,
    "MessageSent": MessageSent,
    "MessageEdited": MessageEdited,
    "MessageDeleted": MessageDeleted,
    "ParticipantJoined": ParticipantJoined,
    "ParticipantLeft": ParticipantLeft,
    "TitleChanged": TitleChanged,
}
"""The types of log entries, which are the records of conversation.events."""

RECEIPT_EVENT_TYPES: dict[str, type[ReceiptAdvanced]] = {"ReceiptAdvanced": ReceiptAdvanced}
"""The records of receipt.events."""

_LOG_EVENT: TypeAdapter[LogEvent] = TypeAdapter(Annotated[LogEvent, Field(discriminator="type")])


def parse_event(payload: bytes | str) -> LogEvent:
    """The event in a log entry's payload. Raises pydantic.ValidationError."""
    return _LOG_EVENT.validate_json(payload)


def parse_receipt(payload: bytes | str) -> ReceiptAdvanced:
    """The event in a record of receipt.events. Raises pydantic.ValidationError."""
    return ReceiptAdvanced.model_validate_json(payload)
