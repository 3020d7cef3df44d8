"""What sending, editing and deleting messages takes and gives, and their events."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import (
    AfterValidator,
    AnyHttpUrl,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    TypeAdapter,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from ingest_api.fields import CommandModel, StorableText
from ingest_api.log_writer import NewEntry, new_entry
from schemas.events import MAX_FILE_NAME_LENGTH, MAX_TEXT_LENGTH, MAX_URL_LENGTH

MAX_BATCH_MESSAGES = 100
MAX_FILE_BYTES = 2**53 - 1  # what JSON readers can tell exactly
_HTTP_URL: TypeAdapter[AnyHttpUrl] = TypeAdapter(AnyHttpUrl)


def _http_url(text: str) -> str:
    _HTTP_URL.validate_python(text)
    return text


class TextBody(CommandModel):
    """Plain text."""

    type: Literal["text"]
    text: StorableText = Field(min_length=1, max_length=MAX_TEXT_LENGTH)


class FileBody(CommandModel):
    """An attachment by reference: where the file is, and how to tell that it is the one that was meant."""

    type: Literal["file"]
    url: Annotated[StorableText, AfterValidator(_http_url)] = Field(
        max_length=MAX_URL_LENGTH, description="http or https; kept as it was sent."
    )
    name: StorableText = Field(min_length=1, max_length=MAX_FILE_NAME_LENGTH)
    size: int = Field(ge=0, le=MAX_FILE_BYTES, strict=True, description="Bytes.")
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="Of the file's bytes, in lower-case hexadecimal.")


Body = Annotated[TextBody | FileBody, Field(discriminator="type")]
_TEXT: JsonValue = {"type": "text", "text": "hi"}
_FILE: JsonValue = {
    "type": "file",
    "url": "https://files.example/plan.pdf",
    "name": "plan.pdf",
    "size": 48213,
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
}
_CONVERSATION_ID = "018f3c1e-7b1a-7c3e-9d2f-5a6b7c8d9e0f"


class SendMessage(CommandModel):
    """Sends a message."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"body": _TEXT}, {"body": _FILE}]})

    message_id: UUID | None = Field(
        default=None,
        description="Chosen by the client so that a retry sends nothing twice; else the server's.",
    )
    body: Body
    reply_to: UUID | None = Field(default=None, description="The message of this conversation that is answered.")


class BatchMessage(SendMessage):
    """A message of a batch."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"conversation_id": _CONVERSATION_ID, "body": _TEXT}]})

    conversation_id: UUID


class MalformedItem(BaseModel):
    """An item that does not have the shape that is documented; the rest of its batch goes on."""

    model_config = ConfigDict(frozen=True)

    errors: list[Any]


def _keep_errors(value: Any, validate: ValidatorFunctionWrapHandler) -> BatchMessage | MalformedItem:
    try:
        message: BatchMessage = validate(value)
    except ValidationError as error:
        return MalformedItem(errors=error.errors(include_url=False))
    return message


class SendBatch(CommandModel):
    """Sends messages. Those of one conversation get their places in the order of the list."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"messages": [{"conversation_id": _CONVERSATION_ID, "body": _TEXT}]}]}
    )

    messages: list[Annotated[BatchMessage, WrapValidator(_keep_errors)]] = Field(
        min_length=1, max_length=MAX_BATCH_MESSAGES
    )

    def items(self) -> list[BatchMessage | MalformedItem]:
        """The messages, and what was sent instead of one."""
        return list(self.messages)


class EditMessage(CommandModel):
    """Gives a message another body."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"body": _TEXT}]})

    body: Body


class SentMessage(BaseModel):
    """Where the message stands."""

    message_id: str
    conversation_id: str
    seq: int
    created_at: str


class BatchResult(BaseModel):
    """What became of one message: `status` is what the message alone would have been answered with. The other members
    are those of that answer, or those of a problem document."""

    model_config = ConfigDict(extra="allow")

    status: int


class BatchResults(BaseModel):
    """One result per message, in the order of the request."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "results": [
                        {
                            "status": 201,
                            "message_id": "018f3c1e-8c00-7f00-8000-000000000001",
                            "conversation_id": _CONVERSATION_ID,
                            "seq": 42,
                            "created_at": "2026-01-02T03:04:05.678901Z",
                        }
                    ]
                }
            ]
        }
    )

    results: list[BatchResult]


def message_entry(
    command: SendMessage, *, message_id: str, conversation_id: str, actor_id: str, traceparent: str
) -> NewEntry:
    """The log entry of the message."""
    fields: dict[str, Any] = {"message_id": message_id, "body": command.body.model_dump()}
    if command.reply_to is not None:
        fields["reply_to"] = str(command.reply_to)
    return new_entry(
        event_id=message_id,
        type="MessageSent",
        conversation_id=conversation_id,
        actor_id=actor_id,
        traceparent=traceparent,
        **fields,
    )
