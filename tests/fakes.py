"""In-memory doubles of the Redis tables and of the log in Postgres. tests/contract keeps the tables' honest."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from schemas.redis_keys import TIMELINE_LENGTH, LiveFrame
from stream_apps.log_reader import ConversationSnapshot, LogEntry
from stream_apps.redis_tables.tables import Applied, Join, TimelineEvent


@dataclass
class ConversationTable:
    """What the tables hold of one conversation. `timeline` is in seq order."""

    epoch: int
    seq: int = 0
    title: str | None = None
    last_message: bytes | None = None
    participants: dict[str, int] = field(default_factory=dict)
    timeline: list[tuple[int, str, str, bytes]] = field(default_factory=list)


@dataclass
class InMemoryTables:
    """The tables as dictionaries; what would be published is kept in `published` and `announced`."""

    conversations: dict[str, ConversationTable] = field(default_factory=dict)
    users: dict[str, dict[str, int]] = field(default_factory=dict)
    published: list[tuple[str, LiveFrame]] = field(default_factory=list)
    announced: list[Join] = field(default_factory=list)
    _epochs: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    async def apply(self, changes: Mapping[str, Sequence[TimelineEvent]]) -> dict[str, Applied]:
        return {conversation_id: self._apply(conversation_id, events) for conversation_id, events in changes.items()}

    def _apply(self, conversation_id: str, events: Sequence[TimelineEvent]) -> Applied:
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
            effects = json.loads(event.effects)
            table.title = effects.get("title", table.title)
            table.participants |= effects["participants"]
        frame = LiveFrame(event.seq, event.event_type, event.event_id, event.payload)
        self.published.append((conversation_id, frame))

    async def rebuild(self, snapshot: ConversationSnapshot) -> bool:
        held = self.conversations.get(snapshot.conversation_id)
        if held is not None and held.seq >= snapshot.seq:
            return False
        entries = [(e.seq, e.event_type, e.event_id, e.payload) for e in snapshot.entries]
        self.conversations[snapshot.conversation_id] = ConversationTable(
            next(self._epochs),
            snapshot.seq,
            snapshot.title,
            snapshot.last_message,
            dict(snapshot.participants),
            entries,
        )
        if entries:
            self.published.append((snapshot.conversation_id, LiveFrame(*entries[-1])))
        return True

    async def join(self, joins: Sequence[Join]) -> list[str]:
        incomplete: dict[str, None] = {}
        for join in joins:
            if join.user_id not in self.users:
                incomplete[join.user_id] = None
            else:
                held = self.users[join.user_id]
                held[join.conversation_id] = max(join.joined_seq, held.get(join.conversation_id, 0))
        return list(incomplete)

    async def build_user(self, user_id: str, conversations: Mapping[str, int]) -> None:
        self.users[user_id] = self.users.get(user_id, {}) | dict(conversations)

    async def announce(self, joins: Sequence[Join]) -> None:
        self.announced += joins


class StoredConversation(NamedTuple):
    """A conversation in the double of Postgres."""

    title: str | None
    participants: dict[str, int]
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
        messages = [entry.payload for entry in stored.entries if entry.event_type == "MessageSent"]
        return ConversationSnapshot(
            conversation_id,
            stored.entries[-1].seq,
            stored.title,
            stored.participants,
            messages[-1] if messages else None,
            stored.entries[-min(entries, TIMELINE_LENGTH) :],
        )

    async def read_user_conversations(self, user_id: str) -> dict[str, int]:
        return {
            conversation_id: stored.participants[user_id]
            for conversation_id, stored in self.conversations.items()
            if user_id in stored.participants
        }
