"""What sending a message takes and gives, and its event."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from ingest_api.fields import CommandModel, StorableText
from ingest_api.log_writer import NewEntry, new_entry
from schemas.events import MAX_TEXT_LENGTH


class TextBody(CommandModel):
    """Plain text."""

    type: Literal["text"]
    text: StorableText = Field(min_length=1, max_length=MAX_TEXT_LENGTH)


class SendMessage(CommandModel):
    """Sends a message."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"body": {"type": "text", "text": "hi"}}]})

    message_id: UUID | None = Field(
        default=None,
        description="Chosen by the client so that a retry sends nothing twice; else the server's.",
    )
    body: TextBody
    reply_to: UUID | None = Field(default=None, description="The message of this conversation that is answered.")


class SentMessage(BaseModel):
    """Where the message stands."""

    message_id: str
    conversation_id: str
    seq: int
    created_at: str


def message_entry(
    command: SendMessage, *, message_id: str, conversation_id: str, actor_id: str, traceparent: str
) -> NewEntry:
    """The log entry of the message."""
    reply_to = str(command.reply_to) if command.reply_to else None
    return new_entry(
        event_id=message_id,
        type="MessageSent",
        conversation_id=conversation_id,
        actor_id=actor_id,
        traceparent=traceparent,
        reply_to=reply_to,
        message_id=message_id,
        body={"type": "text", "text": command.body.text},
    )
