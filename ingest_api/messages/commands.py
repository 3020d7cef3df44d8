"""Sending, editing and deleting messages: log entries, through the log writer."""

from __future__ import annotations

from ingest_api.causes import EventCause
from ingest_api.errors import DatabaseUnavailable, malformed_request
from ingest_api.fields import field_of, new_id
from ingest_api.log_writer import Appended, LogWriter, new_entry
from ingest_api.messages.model import (
    BatchMessage,
    BatchResult,
    BatchResults,
    Body,
    MalformedItem,
    SendBatch,
    SendMessage,
    message_entry,
)
from schemas.problems import ProblemError


async def send_message(
    writer: LogWriter, command: SendMessage, *, conversation_id: str, actor_id: str, traceparent: str
) -> tuple[str, Appended]:
    """The message's id and where it stands. Raises what LogWriter.append raises."""
    message_id = str(command.message_id) if command.message_id else new_id()
    entry = message_entry(
        command,
        message_id=message_id,
        conversation_id=conversation_id,
        actor_id=actor_id,
        traceparent=traceparent,
    )
    return message_id, await writer.append(entry)


async def change_message(
    writer: LogWriter, cause: EventCause, *, conversation_id: str, message_id: str, body: Body | None
) -> Appended:
    """Where the edit stands, or (without a body) the deletion. Raises what LogWriter.append raises."""
    entry = new_entry(
        event_id=cause.event_id,
        type="MessageDeleted" if body is None else "MessageEdited",
        conversation_id=conversation_id,
        actor_id=cause.actor_id,
        traceparent=cause.traceparent,
        message_id=message_id,
        **({} if body is None else {"body": body.model_dump()}),
    )
    return await writer.append(entry)


async def send_batch(writer: LogWriter, command: SendBatch, *, actor_id: str, traceparent: str) -> BatchResults:
    """What became of each message. Raises WriterSaturated and DatabaseUnavailable when that is so of all of them."""
    results: dict[int, BatchResult] = {}
    sent: list[tuple[int, BatchMessage, str]] = []
    for index, item in enumerate(command.items()):
        if isinstance(item, MalformedItem):
            errors = [{**error, "loc": ("body", "messages", index, *field_of(error["loc"]))} for error in item.errors]
            results[index] = _problem(malformed_request(errors))
        else:
            sent.append((index, item, str(item.message_id) if item.message_id else new_id()))
    entries = [
        message_entry(
            item,
            message_id=message_id,
            conversation_id=str(item.conversation_id),
            actor_id=actor_id,
            traceparent=traceparent,
        )
        for _, item, message_id in sent
    ]
    answers = await writer.write(entries) if entries else []
    if answers and isinstance(answers[0], DatabaseUnavailable) and all(answer is answers[0] for answer in answers):
        raise answers[0]
    for (index, item, message_id), answer in zip(sent, answers, strict=True):
        if isinstance(answer, ProblemError):
            results[index] = _problem(answer)
        else:
            results[index] = BatchResult(
                status=200 if answer.is_replay else 201,
                **{
                    "message_id": message_id,
                    "conversation_id": str(item.conversation_id),
                    "seq": answer.seq,
                    "created_at": answer.created_at,
                },
            )
    return BatchResults(results=[results[index] for index in range(len(results))])


def _problem(error: ProblemError) -> BatchResult:
    return BatchResult.model_validate(error.document())
