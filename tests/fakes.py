"""In-memory doubles of the Redis tables and of the log in Postgres. tests/contract keeps the tables' honest."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from infra.telemetry.spans import Span
from schemas.passages import decode_passage
from schemas.redis_keys import (
    TIMELINE_LENGTH,
    LiveFrame,
    Participation,
    Receipt,
    Stay,
    decode_participation,
)
from stream_apps.log_reader import ConversationSnapshot, LogEntry, latest_changes
from stream_apps.redis_tables.tables import Advanced, Applied, Head, MembershipChange, ReceiptChange, TimelineEvent


@dataclass
class ConversationTable:
    """What the tables hold of one conversation. `timeline` is in seq order."""

    epoch: int
    seq: int = 0
    title: str | None = None
    last_message: bytes | None = None
    last_change: bytes | None = None
    participants: dict[str, Participation] = field(default_factory=dict)
    changes: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    timeline: list[tuple[int, str, str, bytes]] = field(default_factory=list)


def message_id_of(payload: bytes | None) -> str | None:
    """The message that a payload is about, if one can tell."""
    try:
        found = json.loads(payload or b"")
    except ValueError:
        return None
    return found.get("message_id") if isinstance(found, dict) else None


@dataclass
class InMemoryTables:
    """The tables as dictionaries; what would be published is kept in `published` and `announced`."""

    conversations: dict[str, ConversationTable] = field(default_factory=dict)
    users: dict[str, dict[str, Stay]] = field(default_factory=dict)
    receipts: dict[str, dict[str, Receipt]] = field(default_factory=dict)
    published: list[tuple[str, LiveFrame]] = field(default_factory=list)
    announced: list[MembershipChange] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)
    """Conversations whose tables hold what is none of ours, and what Redis says of them."""
    now_us: int = 1_767_323_045_678_901
    _epochs: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    async def apply(self, changes: Mapping[str, Sequence[TimelineEvent]]) -> dict[str, Applied]:
        return {conversation_id: self._apply(conversation_id, events) for conversation_id, events in changes.items()}

    def _apply(self, conversation_id: str, events: Sequence[TimelineEvent]) -> Applied:
        if conversation_id in self.damaged:
            return Applied(0, 0, None, error=self.damaged[conversation_id])
        held = self.conversations.get(conversation_id)
        table = held or ConversationTable(next(self._epochs))
        applied = duplicates = 0
        for event in events:
            if event.seq <= table.seq:
                duplicates += 1
                continue
            if event.seq > table.seq + 1:
                return Applied(applied, duplicates, table.seq, has_head=held is not None or applied > 0)
            self._append(conversation_id, table, event)
            self.conversations[conversation_id] = table
            applied += 1
        return Applied(applied, duplicates, None)

    def _append(self, conversation_id: str, table: ConversationTable, event: TimelineEvent) -> None:
        table.seq = event.seq
        table.timeline.append((event.seq, event.event_type, event.event_id, event.payload))
        if event.event_type == "MessageSent":
            table.last_message = event.payload
        if event.effects:
            self._take_effect(table, event, json.loads(event.effects))
        passage = decode_passage(f"{event.origin} {self.now_us}")
        frame = LiveFrame(event.seq, event.event_type, event.event_id, event.payload, passage)
        self.published.append((conversation_id, frame))

    def _take_effect(self, table: ConversationTable, event: TimelineEvent, effects: dict[str, Any]) -> None:
        table.title = effects.get("title", table.title)
        for user_id, text in effects.get("participants", {}).items():
            table.participants[user_id] = decode_participation(text.encode())
        if (left := effects.get("left")) in table.participants:
            table.participants[left] = table.participants[left]._replace(left_seq=event.seq)
        if (successor := effects.get("successor")) in table.participants:
            table.participants[successor] = table.participants[successor]._replace(role="admin")
        if message_id := effects.get("message_id"):
            table.changes[message_id] = (event.seq, event.payload)
            if message_id_of(table.last_message) == message_id:
                table.last_change = event.payload
            if len(table.changes) > 2 * TIMELINE_LENGTH:
                first = table.timeline[0][0]
                table.changes = {name: change for name, change in table.changes.items() if change[0] >= first}

    async def rebuild(self, snapshot: ConversationSnapshot, *, instead_of: Head | None = None) -> bool:
        held = self.conversations.get(snapshot.conversation_id)
        if held is not None and held.seq >= snapshot.seq and instead_of != Head(str(held.epoch), held.seq):
            return False
        entries = [(e.seq, e.event_type, e.event_id, e.payload) for e in snapshot.entries]
        self.conversations[snapshot.conversation_id] = ConversationTable(
            next(self._epochs),
            snapshot.seq,
            snapshot.title,
            snapshot.last_message,
            snapshot.last_change,
            dict(snapshot.participants),
            {message_id: (change.seq, change.payload) for message_id, change in snapshot.changes.items()},
            entries,
        )
        for user_id, receipt in snapshot.receipts.items():
            self._advance(snapshot.conversation_id, user_id, receipt)
        if entries:
            self.published.append((snapshot.conversation_id, LiveFrame(*entries[-1])))
        return True

    async def drop(self, conversation_id: str) -> None:
        self.conversations.pop(conversation_id, None)
        self.receipts.pop(conversation_id, None)
        self.damaged.pop(conversation_id, None)

    async def note_memberships(self, changes: Sequence[MembershipChange]) -> list[str]:
        incomplete: dict[str, None] = {}
        for change in changes:
            if change.user_id not in self.users:
                incomplete[change.user_id] = None
                continue
            held = self.users[change.user_id].get(change.conversation_id, Stay(0, None))
            if change.seq <= max(held.joined_seq, held.left_seq or 0):
                continue
            if not change.has_left:
                self.users[change.user_id][change.conversation_id] = Stay(change.seq, None)
            elif held.joined_seq:
                self.users[change.user_id][change.conversation_id] = Stay(held.joined_seq, change.seq)
            else:
                incomplete[change.user_id] = None
        return list(incomplete)

    async def build_user(self, user_id: str, conversations: Mapping[str, Stay]) -> None:
        held = self.users.setdefault(user_id, {})
        for conversation_id, stay in conversations.items():
            known = held.get(conversation_id, Stay(0, None))
            if max(known.joined_seq, known.left_seq or 0) < max(stay.joined_seq, stay.left_seq or 0):
                held[conversation_id] = stay

    async def announce(self, changes: Sequence[MembershipChange]) -> None:
        self.announced += changes

    async def advance_receipts(self, changes: Mapping[str, Sequence[ReceiptChange]]) -> Advanced:
        news = 0
        errors = {name: self.damaged[name] for name in changes if name in self.damaged}
        for conversation_id, receipts in changes.items():
            if conversation_id in errors:
                continue
            for change in receipts:
                if self._advance(conversation_id, change.user_id, Receipt(change.delivered_seq, change.read_seq)):
                    news += 1
                    frame = LiveFrame(0, "ReceiptAdvanced", change.event_id, change.payload)
                    self.published.append((conversation_id, frame))
        return Advanced(news, errors)

    def _advance(self, conversation_id: str, user_id: str, receipt: Receipt) -> bool:
        held = self.receipts.setdefault(conversation_id, {})
        known = held.get(user_id, Receipt(0, 0))
        maxima = Receipt(max(known.delivered_seq, receipt.delivered_seq), max(known.read_seq, receipt.read_seq))
        if maxima == known:
            return False
        held[user_id] = maxima
        return True


class StoredConversation(NamedTuple):
    """A conversation in the double of Postgres."""

    title: str | None
    participants: dict[str, Participation]
    entries: list[LogEntry]


@dataclass
class InMemoryLog:
    """What Postgres holds, for the reads that the timeline app makes. Conversations by id."""

    conversations: dict[str, StoredConversation] = field(default_factory=dict)

    async def read_entries(self, conversation_id: str, *, after_seq: int, limit: int) -> list[LogEntry]:
        entries = self.conversations[conversation_id].entries if conversation_id in self.conversations else []
        return [entry for entry in entries if entry.seq > after_seq][:limit]

    async def read_snapshot(self, conversation_id: str, *, entries: int) -> ConversationSnapshot | None:
        stored = self.conversations.get(conversation_id)
        if stored is None:
            return None
        messages = [entry for entry in stored.entries if entry.event_type == "MessageSent"]
        change = latest_changes(stored.entries).get(messages[-1].event_id) if messages else None
        return ConversationSnapshot(
            conversation_id,
            stored.entries[-1].seq,
            stored.title,
            stored.participants,
            {},
            messages[-1].payload if messages else None,
            None if change is None else change.payload,
            stored.entries[-min(entries, TIMELINE_LENGTH) :],
        )

    async def read_user_conversations(self, user_id: str) -> dict[str, Stay]:
        return {
            conversation_id: Stay(*stored.participants[user_id][:2])
            for conversation_id, stored in self.conversations.items()
            if user_id in stored.participants
        }


@dataclass
class RecordedSpans:
    """A recorder (infra.telemetry.spans.Recorder) that keeps what it is told."""

    spans: list[Span] = field(default_factory=list)
    is_closed: bool = False

    def record(self, span: Span) -> None:
        self.spans.append(span)

    def close(self) -> None:
        self.is_closed = True
