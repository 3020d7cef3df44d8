"""The I/O of the timeline app: applies a batch's changes to the tables, and fills gaps from Postgres."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from schemas.redis_keys import TIMELINE_LENGTH, Stay
from stream_apps.log_reader import ConversationSnapshot, LogEntry
from stream_apps.records import Record
from stream_apps.redis_tables.tables import Applied, MembershipChange, Tables
from stream_apps.telemetry import TimelineMetrics
from stream_apps.timeline.projection import Changes, Poison, events_of_entries, project, project_receipts


class Log(Protocol):
    """What the app reads from Postgres (stream_apps.log_reader.LogReader says it in full)."""

    async def read_entries(self, conversation_id: str, *, after_seq: int, limit: int) -> list[LogEntry]: ...
    async def read_snapshot(self, conversation_id: str, *, entries: int) -> ConversationSnapshot | None: ...
    async def read_user_conversations(self, user_id: str) -> dict[str, Stay]: ...


class Outlet(Protocol):
    """Where records go that can never be applied (stream_apps.dead_letters.DeadLetters)."""

    async def send(self, record: Record, reason: str) -> None: ...


class UnhealedGap(Exception):
    """A conversation's events do not follow on its table even after it was rebuilt from Postgres."""


class SetAside:
    """Sends dead letters, each once although its batch may be tried again."""

    def __init__(self, outlet: Outlet, metrics: TimelineMetrics) -> None:
        self._outlet = outlet
        self._metrics = metrics
        self._sent: set[tuple[str, int, int]] = set()

    async def send(self, poison: Poison) -> None:
        """Returns when the record is set aside. Raises TooManyDeadLetters, KafkaError."""
        record = poison.record
        origin = (record.topic, record.partition, record.offset)
        if origin not in self._sent:
            await self._outlet.send(record, poison.reason)
            self._metrics.dead_letters_total.inc()
            self._sent.add(origin)

    def forget(self) -> None:
        """The batch is done."""
        self._sent.clear()


class Receipts:
    """Applies batches of receipt.events: one call to Redis each."""

    def __init__(self, tables: Tables, dead_letters: Outlet, metrics: TimelineMetrics) -> None:
        self._tables = tables
        self._set_aside = SetAside(dead_letters, metrics)
        self._metrics = metrics

    async def apply(self, records: Sequence[Record]) -> None:
        """Returns when the tables hold what the records say. Raises what Redis and Kafka raise when they are away, and
        TooManyDeadLetters."""
        changes = project_receipts(records)
        for poison in changes.poison:
            await self._set_aside.send(poison)
        if changes.receipts:
            self._metrics.receipts_total.inc(await self._tables.advance_receipts(changes.receipts))
        self._set_aside.forget()


class Timeline:
    """Applies batches. May be called again with a batch that failed half-way: every step is idempotent."""

    def __init__(self, tables: Tables, log: Log, dead_letters: Outlet, metrics: TimelineMetrics) -> None:
        self._tables = tables
        self._log = log
        self._set_aside = SetAside(dead_letters, metrics)
        self._metrics = metrics

    async def apply(self, records: Sequence[Record]) -> None:
        """Returns when the tables hold what the records say. Raises what Redis, Postgres and Kafka raise when they are
        away, UnhealedGap, and TooManyDeadLetters."""
        changes = project(records)
        for poison in changes.poison:
            await self._set_aside.send(poison)
        # A user's table before the conversation's: a crash in between must not lose what an applied event implies.
        if changes.memberships:
            await self._note(changes.memberships)
        if changes.events:
            applied = await self._tables.apply(changes.events)
            for conversation_id, result in applied.items():
                self._count(result)
                if result.gap_after is not None:
                    await self._heal(conversation_id, changes, result)
        if changes.memberships:
            await self._tables.announce(changes.memberships)
        self._set_aside.forget()

    async def _note(self, memberships: Sequence[MembershipChange]) -> None:
        for user_id in await self._tables.note_memberships(memberships):
            await self._tables.build_user(user_id, await self._log.read_user_conversations(user_id))

    async def _heal(self, conversation_id: str, changes: Changes, result: Applied) -> None:
        """Fetches what is missing between the table and the events, and applies these again."""
        events = changes.events[conversation_id]
        self._metrics.gaps_total.inc()
        gap_after = result.gap_after or 0
        first = next(event.seq for event in events if event.seq > gap_after)
        missing = first - gap_after - 1
        if result.has_head and missing <= TIMELINE_LENGTH:
            entries = await self._log.read_entries(conversation_id, after_seq=gap_after, limit=missing)
            filled = [*events_of_entries(conversation_id, entries), *events]
            again = (await self._tables.apply({conversation_id: filled}))[conversation_id]
            if again.gap_after is None:
                return
        snapshot = await self._log.read_snapshot(conversation_id, entries=TIMELINE_LENGTH)
        if snapshot is None:
            for record in changes.records[conversation_id]:
                await self._set_aside.send(Poison(record, "Postgres has no such conversation"))
            return
        if await self._tables.rebuild(snapshot):
            self._metrics.rebuilds_total.inc()
        again = (await self._tables.apply({conversation_id: events}))[conversation_id]
        if again.gap_after is not None:
            raise UnhealedGap(
                f"conversation {conversation_id}: the table is at {again.gap_after}, Postgres at"
                f" {snapshot.seq}, and Kafka brings {first}"
            )

    def _count(self, result: Applied) -> None:
        self._metrics.duplicates_total.inc(result.duplicates)
