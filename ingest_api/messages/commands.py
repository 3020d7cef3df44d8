"""Sending a message: one log entry, through the log writer."""

from __future__ import annotations

from ingest_api.fields import new_id
from ingest_api.log_writer import Appended, LogWriter
from ingest_api.messages.model import SendMessage, message_entry


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
