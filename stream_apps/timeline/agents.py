"""The I/O of the timeline app: applies a batch's changes to the tables, and fills gaps from Postgres."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Protocol

from schemas.redis_keys import TIMELINE_LENGTH, Stay
from stream_apps.base import is_passing
from stream_apps.dead_letter_limit import TooManyDeadLetters
from stream_apps.log_reader import ConversationSnapshot, LogEntry
from stream_apps.parking import Left, ParkingLot
from stream_apps.records import Record
from stream_apps.redis_tables.tables import Applied, MembershipChange, Tables, TimelineEvent
from stream_apps.telemetry import TimelineMetrics
from stream_apps.timeline.projection import Changes, Poison, events_of_entries, project, project_receipts

logger = logging.getLogger(__name__)


class Log(Protocol):
    """What the app reads from Postgres (stream_apps.log_reader.LogReader says it in full)."""

    async def read_entries(self, conversation_id: str, *, after_seq: int, limit: int) -> list[LogEntry]: ...
    async def read_snapshot(self, conversation_id: str, *, entries: int) -> ConversationSnapshot | None: ...
    async def read_user_conversations(self, user_id: str) -> dict[str, Stay]: ...


class Outlet(Protocol):
    """Where records go that can never be applied (stream_apps.dead_letters.DeadLetters)."""

    async def send(self, record: Record, reason: str) -> None: ...


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

    def __init__(self, tables: Tables, log: Log, dead_letters: Outlet, metrics: TimelineMetrics) -> None:
        self._tables = tables
        self._log = log
        self._set_aside = SetAside(dead_letters, metrics)
        self._metrics = metrics

    async def apply(self, records: Sequence[Record]) -> None:
        """Returns when the tables hold what the records say. Raises what Redis, Postgres and Kafka raise when they are
        away, and TooManyDeadLetters."""
        changes = project_receipts(records)
        for poison in changes.poison:
            await self._set_aside.send(poison)
        if changes.receipts:
            advanced = await self._tables.advance_receipts(changes.receipts)
            self._metrics.receipts_total.inc(advanced.news)
            for conversation_id, error in advanced.errors.items():
                await self._make_anew(conversation_id, error)
        self._set_aside.forget()

    async def _make_anew(self, conversation_id: str, error: str) -> None:
        """Postgres has the receipts too, and what was in the tables' place is worth nothing."""
        logger.error("the receipts of conversation %s are made anew: %s", conversation_id, error)
        self._metrics.repairs_total.inc()
        await self._tables.drop(conversation_id)
        snapshot = await self._log.read_snapshot(conversation_id, entries=TIMELINE_LENGTH)
        if snapshot is not None:
            await self._tables.rebuild(snapshot)


class Timeline:
    """Applies batches. May be called again with a batch that failed half-way: every step is idempotent.

    Events that cannot be applied are parked, and nothing else notices.
    """

    def __init__(
        self, tables: Tables, log: Log, dead_letters: Outlet, lot: ParkingLot, metrics: TimelineMetrics
    ) -> None:
        self._tables = tables
        self._log = log
        self._set_aside = SetAside(dead_letters, metrics)
        self._given_up = SetAside(dead_letters, metrics)
        self._lot = lot
        self._metrics = metrics

    async def apply(self, records: Sequence[Record]) -> list[asyncio.Future[None]]:
        """Returns when the tables hold what the records say, but for what is parked: that is settled with the answer.
        Raises what Redis, Postgres and Kafka raise when they are away, and TooManyDeadLetters."""
        changes = project(records)
        for poison in changes.poison:
            await self._set_aside.send(poison)
        left = await self._apply_changes(changes, bring_up_parked=False)
        self._set_aside.forget()
        return [self._lot.park(conversation_id, found) for conversation_id, found in left.items()]

    async def apply_one(self, conversation_id: str, records: Sequence[Record]) -> Left | None:
        """Applies parked records of a conversation (what is poison among them is set aside already); what is left.
        Raises what apply raises."""
        return (await self._apply_changes(project(records), bring_up_parked=True)).get(conversation_id)

    async def give_up(self, records: Sequence[Record], reason: str) -> None:
        """Sets the records of a parked conversation aside. Raises TooManyDeadLetters, KafkaError."""
        for record in records:
            await self._given_up.send(Poison(record, reason))
        self._given_up.forget()

    async def _apply_changes(self, changes: Changes, *, bring_up_parked: bool) -> dict[str, Left]:
        """Applies the changes; per conversation, what is left. One that is parked already is brought up by whoever
        attends to it, not by each batch."""
        # A user's table before the conversation's: a crash in between must not lose what an applied event implies.
        if changes.memberships:
            await self._note(changes.memberships)
        results = await self._tables.apply(changes.events) if changes.events else {}
        self._metrics.observe_hops(_applied(changes, results), applied_us=time.time_ns() // 1000)
        found = {name: await self._see_to(name, changes, result, bring_up_parked) for name, result in results.items()}
        if changes.memberships:
            await self._tables.announce(changes.memberships)
        return {name: left for name, left in found.items() if left is not None}

    async def _see_to(
        self, conversation_id: str, changes: Changes, result: Applied, bring_up_parked: bool
    ) -> Left | None:
        """Has a conversation brought up to its events if need be; what is left."""
        self._metrics.duplicates_total.inc(result.duplicates)
        if result.error is None and result.gap_after is None:
            return None
        if conversation_id in self._lot and not bring_up_parked:
            return _left(conversation_id, changes, result)
        try:
            return _left(conversation_id, changes, await self._bring_up(conversation_id, changes, result))
        except Exception as error:
            if is_passing(error) or isinstance(error, TooManyDeadLetters):
                raise
            logger.exception("conversation %s cannot be brought up to its events", conversation_id)
            return Left(changes.records[conversation_id], f"{type(error).__name__}: {error}")

    async def _note(self, memberships: Sequence[MembershipChange]) -> None:
        for user_id in await self._tables.note_memberships(memberships):
            await self._tables.build_user(user_id, await self._log.read_user_conversations(user_id))

    async def _bring_up(self, conversation_id: str, changes: Changes, result: Applied) -> Applied:
        """Brings a conversation's tables up to its events, and applies these; what became of them."""
        events = changes.events[conversation_id]
        if result.error is not None:
            logger.error("the tables of conversation %s are made anew: %s", conversation_id, result.error)
            self._metrics.repairs_total.inc()
            await self._tables.drop(conversation_id)
        else:
            self._metrics.gaps_total.inc()
            filled = await self._fill(conversation_id, events, result)
            if filled is not None:
                return filled
        snapshot = await self._log.read_snapshot(conversation_id, entries=TIMELINE_LENGTH)
        if snapshot is None:
            for record in changes.records[conversation_id]:
                await self._set_aside.send(Poison(record, "Postgres has no such conversation"))
            return Applied(0, 0, None)
        if await self._tables.rebuild(snapshot):
            self._metrics.rebuilds_total.inc()
        return (await self._tables.apply({conversation_id: events}))[conversation_id]

    async def _fill(self, conversation_id: str, events: Sequence[TimelineEvent], result: Applied) -> Applied | None:
        """Fetches the few entries that are missing, and applies the events after them; None if that was not enough."""
        gap_after = result.gap_after or 0
        missing = next(event.seq for event in events if event.seq > gap_after) - gap_after - 1
        if not result.has_head or missing > TIMELINE_LENGTH:
            return None
        entries = await self._log.read_entries(conversation_id, after_seq=gap_after, limit=missing)
        filled = [*events_of_entries(conversation_id, entries), *events]
        again = (await self._tables.apply({conversation_id: filled}))[conversation_id]
        return again if again.error is None and again.gap_after is None else None


def _applied(changes: Changes, results: Mapping[str, Applied]) -> list[Record]:
    """The records that became part of the tables: of a conversation's, those after what it had."""
    return [
        record
        for name, result in results.items()
        for record in changes.records[name][result.duplicates : result.duplicates + result.applied]
    ]


def _left(conversation_id: str, changes: Changes, result: Applied) -> Left | None:
    """What of a conversation's records was not applied."""
    records = changes.records[conversation_id]
    if result.error is not None:
        return Left(records, f"Redis refuses them: {result.error}")
    if result.gap_after is None:
        return None
    pairs = zip(changes.events[conversation_id], records, strict=True)
    beyond = [(event.seq, record) for event, record in pairs if event.seq > result.gap_after]
    return Left(
        [record for _, record in beyond],
        f"they do not follow on anything: the table is at {result.gap_after}, Postgres is no further, and Kafka brings"
        f" {beyond[0][0]}",
    )
