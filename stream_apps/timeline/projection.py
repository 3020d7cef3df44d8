"""The pure part of the timeline app: records -> what the Redis tables must become."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from schemas.envelope import Envelope, MalformedEnvelope, read_envelope
from schemas.events import (
    EVENT_TYPES,
    ConversationCreated,
    LogEvent,
    MessageDeleted,
    MessageEdited,
    ParticipantJoined,
    ParticipantLeft,
    TitleChanged,
    parse_event,
    parse_receipt,
)
from schemas.ids import MalformedKey, conversation_id_of_key
from schemas.passages import NO_ORIGIN, encode_origin
from schemas.redis_keys import Participation, encode_participation
from stream_apps.log_reader import LogEntry
from stream_apps.records import Record
from stream_apps.redis_tables.tables import MembershipChange, ReceiptChange, TimelineEvent

WITH_EFFECTS = frozenset(EVENT_TYPES) - {"MessageSent"}
"""The types whose payload is parsed, because they change more than the timeline. Messages are not among them."""


@dataclass(frozen=True, slots=True)
class Poison:
    """A record that can never be applied as what it claims to be, and why."""

    record: Record
    reason: str


@dataclass(slots=True)
class Changes:
    """What a batch of records changes: events per conversation, in seq order, and beside them the records that they
    came in; who joined and left; and what is poison."""

    records: dict[str, list[Record]] = field(default_factory=dict)
    events: dict[str, list[TimelineEvent]] = field(default_factory=dict)
    memberships: list[MembershipChange] = field(default_factory=list)
    poison: list[Poison] = field(default_factory=list)


def project(records: Iterable[Record]) -> Changes:
    """The changes of a batch. A payload is parsed only if its type has effects besides the timeline. One that does not
    satisfy its type is poison, but keeps its place in the timeline, so that the conversation goes on."""
    changes = Changes()
    disordered: set[str] = set()
    for record in records:
        try:
            envelope = read_envelope(record.key, record.headers, record.value)
        except MalformedEnvelope as error:
            changes.poison.append(Poison(record, str(error)))
            continue
        conversation_id = envelope.conversation_id
        origin = encode_origin(record.timestamp, envelope.traceparent)
        if envelope.event_type in WITH_EFFECTS:
            event = _take_effects(envelope, record, changes)._replace(origin=origin)
        else:
            event = _plain(envelope, origin)
        events = changes.events.get(conversation_id)
        if events is None:
            changes.events[conversation_id] = [event]
            changes.records[conversation_id] = [record]
            continue
        if events[-1].seq > event.seq:
            disordered.add(conversation_id)
        events.append(event)
        changes.records[conversation_id].append(record)
    for conversation_id in disordered:  # redelivered in the middle of a batch, or poison
        pairs = zip(changes.events[conversation_id], changes.records[conversation_id], strict=True)
        in_order = sorted(pairs, key=lambda pair: pair[0].seq)
        changes.events[conversation_id] = [event for event, _ in in_order]
        changes.records[conversation_id] = [record for _, record in in_order]
    return changes


def events_of_entries(conversation_id: str, entries: Sequence[LogEntry]) -> list[TimelineEvent]:
    """The events in rows of the log."""
    return [
        _event_of(Envelope(conversation_id, entry.seq, entry.event_id, entry.event_type, entry.payload))[0]
        for entry in entries
    ]


def memberships_of_entries(conversation_id: str, entries: Sequence[LogEntry]) -> list[MembershipChange]:
    """Who joined and left, in rows of the log."""
    changes: list[MembershipChange] = []
    for entry in entries:
        envelope = Envelope(conversation_id, entry.seq, entry.event_id, entry.event_type, entry.payload)
        changes += _event_of(envelope)[1]
    return changes


def _take_effects(envelope: Envelope, record: Record, changes: Changes) -> TimelineEvent:
    """The event of a record whose type has effects; who joins and leaves is noted, and what is wrong with it."""
    try:
        event, memberships, reason = _event_of(envelope)
    except Exception as error:  # whatever an event does to its parser, the others are not to suffer for it
        event, memberships, reason = _plain(envelope), (), f"{type(error).__name__}: {error}"
    if reason:
        changes.poison.append(Poison(record, reason))
    changes.memberships += memberships
    return event


def _plain(envelope: Envelope, origin: str = NO_ORIGIN) -> TimelineEvent:
    return TimelineEvent(envelope.seq, envelope.event_type, envelope.event_id, envelope.payload, "", origin)


def _event_of(envelope: Envelope) -> tuple[TimelineEvent, Sequence[MembershipChange], str | None]:
    plain = _plain(envelope)
    if envelope.event_type not in WITH_EFFECTS:
        return plain, (), None
    try:
        event = parse_event(envelope.payload)
    except ValidationError as error:
        return plain, (), f"{envelope.event_type}: {_first_of(error)}"
    if event.type != envelope.event_type:
        return plain, (), f"the header says {envelope.event_type}, the payload {event.type}"
    effects = json.dumps(_effects_of(event, envelope.seq))
    return plain._replace(effects=effects), _memberships_of(event, envelope), None


def _effects_of(event: LogEvent, seq: int) -> dict[str, Any]:
    """What an event changes besides the timeline, as redis_tables/apply.lua reads it."""
    match event:
        case ConversationCreated():
            participants = {
                str(user_id): _joined(seq, "admin" if user_id == event.actor_id else "member")
                for user_id in event.participants
            }
            return {"title": event.title, "participants": participants}
        case ParticipantJoined():
            return {"participants": {str(event.user_id): _joined(seq, event.role)}}
        case ParticipantLeft():
            left = {"left": str(event.user_id)}
            return left if event.successor_id is None else {**left, "successor": str(event.successor_id)}
        case TitleChanged():
            return {"title": event.title}
        case MessageEdited() | MessageDeleted():
            return {"message_id": str(event.message_id)}
        case _:
            return {}


def _joined(seq: int, role: str) -> str:
    return encode_participation(Participation(seq, None, role))


def _memberships_of(event: LogEvent, envelope: Envelope) -> list[MembershipChange]:
    conversation_id, seq = envelope.conversation_id, envelope.seq
    match event:
        case ConversationCreated():
            return [MembershipChange(str(user_id), conversation_id, seq) for user_id in event.participants]
        case ParticipantJoined():
            return [MembershipChange(str(event.user_id), conversation_id, seq)]
        case ParticipantLeft():
            return [MembershipChange(str(event.user_id), conversation_id, seq, has_left=True)]
        case _:
            return []


@dataclass(slots=True)
class ReceiptChanges:
    """What a batch of records of receipt.events changes, per conversation, and what is poison."""

    receipts: dict[str, list[ReceiptChange]] = field(default_factory=dict)
    poison: list[Poison] = field(default_factory=list)


def project_receipts(records: Iterable[Record]) -> ReceiptChanges:
    """The receipts of a batch; of those of one participant that follow on each other, only the last."""
    latest: dict[tuple[str, str], list[ReceiptChange]] = {}
    changes = ReceiptChanges()
    for record in records:
        try:
            conversation_id = conversation_id_of_key(record.key or b"")
            receipt = parse_receipt(record.value or b"")
        except MalformedKey as error:
            changes.poison.append(Poison(record, f"{type(error).__name__}: {error}"))
            continue
        except ValidationError as error:
            changes.poison.append(Poison(record, f"ReceiptAdvanced: {_first_of(error)}"))
            continue
        if str(receipt.conversation_id) != conversation_id:
            reason = f"the key says {conversation_id}, the payload {receipt.conversation_id}"
            changes.poison.append(Poison(record, reason))
            continue
        user_id = str(receipt.user_id)
        change = ReceiptChange(
            user_id, receipt.delivered_seq, receipt.read_seq, str(receipt.event_id), record.value or b""
        )
        before = latest.setdefault((conversation_id, user_id), [])
        if before and before[-1].delivered_seq <= change.delivered_seq and before[-1].read_seq <= change.read_seq:
            before.pop()
        before.append(change)
    for (conversation_id, _), receipts in latest.items():
        changes.receipts.setdefault(conversation_id, []).extend(receipts)
    return changes


def _first_of(error: ValidationError) -> str:
    return f"{error.error_count()} errors, the first: {error.errors()[0]['msg']}"
