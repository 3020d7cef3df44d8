"""The pure part of the timeline app: records -> what the Redis tables must become."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pydantic import ValidationError

from schemas.envelope import Envelope, MalformedEnvelope, read_envelope
from schemas.events import ConversationCreated, parse_event
from stream_apps.log_reader import LogEntry
from stream_apps.records import Record
from stream_apps.redis_tables.tables import Join, TimelineEvent, effects_of


@dataclass(frozen=True, slots=True)
class Poison:
    """A record that can never be applied as what it claims to be, and why."""

    record: Record
    reason: str


@dataclass(slots=True)
class Changes:
    """What a batch of records changes: events per conversation (in the records' order) and the records that they came
    in, joins, and what is poison."""

    records: dict[str, list[Record]] = field(default_factory=dict)
    events: dict[str, list[TimelineEvent]] = field(default_factory=dict)
    joins: list[Join] = field(default_factory=list)
    poison: list[Poison] = field(default_factory=list)


def project(records: Iterable[Record]) -> Changes:
    """The changes of a batch. A payload is parsed only if its type has effects besides the timeline. One that does not
    satisfy its type is poison, but keeps its place in the timeline, so that the conversation goes on."""
    changes = Changes()
    for record in records:
        try:
            envelope = read_envelope(record.key, record.headers, record.value)
        except MalformedEnvelope as error:
            changes.poison.append(Poison(record, str(error)))
            continue
        event, joins, reason = _event_of(envelope)
        if reason:
            changes.poison.append(Poison(record, reason))
        changes.events.setdefault(envelope.conversation_id, []).append(event)
        changes.records.setdefault(envelope.conversation_id, []).append(record)
        changes.joins += joins
    return changes


def _event_of(envelope: Envelope) -> tuple[TimelineEvent, list[Join], str | None]:
    if envelope.event_type != "ConversationCreated":
        event = TimelineEvent(envelope.seq, envelope.event_type, envelope.event_id, envelope.payload)
        return event, [], None
    plain = TimelineEvent(envelope.seq, envelope.event_type, envelope.event_id, envelope.payload)
    try:
        created = parse_event(envelope.payload)
    except ValidationError as error:
        return plain, [], f"{envelope.event_type}: {error.error_count()} errors, the first: {error.errors()[0]['msg']}"
    if not isinstance(created, ConversationCreated):
        return plain, [], f"the header says {envelope.event_type}, the payload {created.type}"
    participants = {str(user_id): envelope.seq for user_id in created.participants}
    joins = [Join(user_id, envelope.conversation_id, envelope.seq) for user_id in participants]
    return plain._replace(effects=effects_of(created.title, participants)), joins, None


def events_of_entries(conversation_id: str, entries: Sequence[LogEntry]) -> list[TimelineEvent]:
    """The same from rows of the log."""
    return [
        _event_of(Envelope(conversation_id, entry.seq, entry.event_id, entry.event_type, entry.payload))[0]
        for entry in entries
    ]
