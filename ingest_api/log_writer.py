"""The log writer: appends entries to conversations, those of concurrent requests together.

What an entry is and who may write it is decided in SQL (migrations/sql/append_entries.sql, change_conversations.sql).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, NamedTuple

from ingest_api.errors import ConversationNotFound
from ingest_api.group_commit import Connect, GroupCommit, Limits, OutcomeUnknown, Statement, WriterSaturated
from ingest_api.telemetry import WriterMetrics
from schemas.problems import ProblemError

__all__ = [
    "APPEND",
    "APPEND_ENTRIES",
    "CHANGE_CONVERSATIONS",
    "Appended",
    "EventIdTaken",
    "LogWriter",
    "MessageAlreadyDeleted",
    "MessageNotFound",
    "NewEntry",
    "NotAllowed",
    "OutcomeUnknown",
    "ParticipantNotFound",
    "UnknownParticipants",
    "UnknownReply",
    "WriterSaturated",
    "append_arguments",
    "new_entry",
    "read_outcome",
]

_CALL = """
    SELECT outcome, seq, payload_time(created_at)
    FROM {function}(%s::uuid[], %s::uuid[], %s::uuid[], %s::text[], %s::uuid[], %s::text[], %s::text[])
"""
APPEND = _CALL.format(function="append_entries")
_SUBJECTS = {
    "MessageSent": "reply_to",
    "MessageEdited": "message_id",
    "MessageDeleted": "message_id",
    "ParticipantJoined": "user_id",
    "ParticipantLeft": "user_id",
}


class EventIdTaken(ProblemError):
    """The id was used before, for something else; choose another one."""

    code, title, status = "id-taken", "Id taken", 409


class UnknownReply(ProblemError):
    """`reply_to` names no message of this conversation."""

    code, title, status = "unknown-reply", "Unknown message replied to", 422


class MessageNotFound(ProblemError):
    """The conversation has no such message."""

    code, title, status = "message-not-found", "Message not found", 404


class MessageAlreadyDeleted(ProblemError):
    """The message is deleted, so it cannot be edited."""

    code, title, status = "message-deleted", "Message deleted", 409


class NotAllowed(ProblemError):
    """The caller is a participant, but only an admin of the conversation (or a message's sender) may do this."""

    code, title, status = "not-allowed", "Not allowed", 403


class UnknownParticipants(ProblemError):
    """Some of the participants are not registered; `user_ids` names them."""

    code, title, status = "unknown-participants", "Unknown participants", 422


class ParticipantNotFound(ProblemError):
    """The user has never been in the conversation."""

    code, title, status = "participant-not-found", "Participant not found", 404


class NewEntry(NamedTuple):
    """An entry to be appended. `subject_id` is the message that it answers or changes, or the user who joins or
    leaves. `tail` is its payload as JSON text without the opening brace and without `seq` and `created_at`; `type` and
    `traceparent` hold nothing that an array literal would have to quote."""

    event_id: str
    conversation_id: str
    actor_id: str
    type: str
    subject_id: str | None
    tail: str
    traceparent: str


def new_entry(
    *, event_id: str, type: str, conversation_id: str, actor_id: str, traceparent: str, **fields: Any
) -> NewEntry:
    """An entry from its event's fields; those that every event has, and those of its type."""
    event = {
        "event_id": event_id,
        "type": type,
        "conversation_id": conversation_id,
        "actor_id": actor_id,
        **fields,
    }
    tail = json.dumps(event, ensure_ascii=False, separators=(",", ":"))[1:]
    subject_id = fields.get(_SUBJECTS.get(type, ""))
    return NewEntry(event_id, conversation_id, actor_id, type, subject_id, tail, traceparent)


@dataclass(frozen=True, slots=True)
class Appended:
    """Where an entry stands. `created_at` is RFC 3339 text. A replay was stored by an earlier request."""

    seq: int
    created_at: str
    is_replay: bool


def append_arguments(entries: list[NewEntry]) -> tuple[str, ...]:
    """The arguments of `append_entries`: seven arrays, as the literals that PostgreSQL reads (its manual, 8.15.6). The
    driver's own way to write an array of texts takes forty times as long."""
    return (
        _array([entry.event_id for entry in entries]),
        _array([entry.conversation_id for entry in entries]),
        _array([entry.actor_id for entry in entries]),
        _array([entry.type for entry in entries]),
        _array([entry.subject_id or "NULL" for entry in entries]),
        _array([_quoted(entry.tail) for entry in entries]),
        _array([entry.traceparent for entry in entries]),
    )


def _array(items: list[str]) -> str:
    return "{" + ",".join(items) + "}"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


_REFUSALS: dict[str, tuple[type[ProblemError], str]] = {
    "conflict": (EventIdTaken, "This id is taken by other content; choose another one."),
    "unknown_reply": (UnknownReply, "reply_to names no message of this conversation."),
    "unknown_message": (MessageNotFound, "The conversation has no message with this id."),
    "deleted": (MessageAlreadyDeleted, "The message is deleted; a deleted message cannot be edited."),
    "forbidden": (NotAllowed, "Only an admin of the conversation may do this (or the sender of the message)."),
    "unknown_user": (UnknownParticipants, "There is no user with this user_id."),
    "unknown_participant": (ParticipantNotFound, "This user has never been in the conversation."),
}


def read_outcome(outcome: str, seq: int | None, created_at: str | None) -> Appended | ProblemError:
    """What one row of `append_entries` or `change_conversations` says."""
    if outcome in ("appended", "replayed") and seq is not None and created_at is not None:
        return Appended(seq=seq, created_at=created_at, is_replay=outcome == "replayed")
    if outcome == "not_found":
        return ConversationNotFound()
    if outcome in _REFUSALS:
        kind, detail = _REFUSALS[outcome]
        return kind(detail)
    raise AssertionError(f"append_entries answered {outcome!r}")


def split_at_dependencies(entries: list[NewEntry]) -> list[list[NewEntry]]:
    """Runs that one call each may take. Within a call no entry sees another one, so an entry about a message that the
    run sends, edits or deletes begins the next run."""
    if all(entry.subject_id is None for entry in entries):
        return [entries]
    runs: list[list[NewEntry]] = [[]]
    touched: set[str | None] = set()
    for entry in entries:
        if entry.subject_id is not None and entry.subject_id in touched:
            runs.append([])
            touched.clear()
        runs[-1].append(entry)
        touched.add(entry.event_id)
        if entry.type != "MessageSent":
            touched.add(entry.subject_id)
    return runs


APPEND_ENTRIES: Statement[NewEntry, Appended] = Statement(APPEND, append_arguments, read_outcome, split_at_dependencies)
"""Messages: sent, edited, deleted."""

CHANGE_CONVERSATIONS: Statement[NewEntry, Appended] = Statement(
    _CALL.format(function="change_conversations"), append_arguments, read_outcome
)
"""Participants who join and leave, and titles: each with the change that it tells of."""


class LogWriter(GroupCommit[NewEntry, Appended]):
    """Appends messages, edits and deletions through a few connections of its own."""

    def __init__(
        self,
        connect: Connect,
        *,
        connections: int,
        batch_size: int,
        queue_size: int,
        timeout_seconds: float,
        metrics: WriterMetrics,
    ) -> None:
        super().__init__(
            connect,
            APPEND_ENTRIES,
            Limits(
                connections=connections,
                batch_size=batch_size,
                queue_size=queue_size,
                timeout_seconds=timeout_seconds,
            ),
            metrics,
        )

    append = GroupCommit.write_one
