"""Reads many conversations at once from Postgres, for backfill and audit. Patient where the log reader is quick."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from schemas.redis_keys import Participation, Receipt, Stay
from stream_apps import log_queries, scan_queries
from stream_apps.log_reader import ConversationSnapshot, LogEntry, LogReader, latest_changes

FIRST_ID = "00000000-0000-0000-0000-000000000000"
"""Before every conversation's id."""

Row = Sequence[Any]


class Touched(NamedTuple):
    """The first and the last entry that a conversation got in a span of time."""

    first_seq: int
    last_seq: int


class Density(NamedTuple):
    """How far a conversation says that it is, how many entries the log has of it, and the seqs of the first and the
    last (0: none)."""

    said_seq: int
    entries: int
    first_seq: int
    last_seq: int


class LogScanner(LogReader):
    """The log reader, with questions about many conversations. Every method raises LogUnavailable."""

    def __init__(self, connection_arguments: Mapping[str, Any], *, timeout_seconds: float = 30.0) -> None:
        super().__init__(connection_arguments, max_connections=2, timeout_seconds=timeout_seconds)

    async def read_clock(self) -> datetime:
        """What Postgres' clock says."""
        now: datetime = (await self._fetch(scan_queries.READ_CLOCK, {}))[0][0]
        return now

    async def count_conversations(self) -> int:
        """How many there are."""
        return int((await self._fetch(scan_queries.COUNT_CONVERSATIONS, {}))[0][0])

    async def read_conversations(self, *, after: str = FIRST_ID, limit: int) -> dict[str, int]:
        """The first `limit` conversations after an id, in the order of ids, and their last seqs."""
        return dict(await self._pairs(scan_queries.READ_CONVERSATIONS, {"after": after, "limit": limit}))

    async def read_touched(self, *, since: datetime, until: datetime) -> dict[str, Touched]:
        """The conversations that got entries after `since` and not after `until`; the latest first."""
        rows = await self._fetch(scan_queries.READ_TOUCHED, {"since": since, "until": until})
        return {conversation_id: Touched(*seqs) for conversation_id, *seqs in rows}

    async def read_last_seqs(self, ids: Iterable[str]) -> dict[str, int]:
        """How far each conversation is; those that there are none of are left out."""
        return dict(await self._pairs(scan_queries.READ_LAST_SEQS, {"ids": list(ids)}))

    async def read_density(self, ids: Iterable[str]) -> dict[str, Density]:
        """What the log has of each conversation; those that there are none of are left out."""
        rows = await self._fetch(scan_queries.READ_DENSITY, {"ids": list(ids)})
        return {conversation_id: Density(*numbers) for conversation_id, *numbers in rows}

    async def read_ranges(self, ranges: Mapping[str, tuple[int, int]]) -> dict[str, list[LogEntry]]:
        """Each conversation's entries in its range of seqs (both ends included), in seq order."""
        return _in_places(list(ranges), await self._fetch(scan_queries.READ_RANGES, _asked(ranges)))

    async def read_stays_of_users(self, user_ids: Iterable[str]) -> dict[str, dict[str, Stay]]:
        """The conversations that each of the users is or was in."""
        users = list(user_ids)
        found: dict[str, dict[str, Stay]] = {user_id: {} for user_id in users}
        for user_id, conversation_id, *stay in await self._fetch(scan_queries.READ_STAYS, {"users": users}):
            found[user_id][conversation_id] = Stay(*stay)
        return found

    async def read_snapshots(self, ids: Iterable[str], *, entries: int) -> dict[str, ConversationSnapshot]:
        """Each conversation with its newest `entries` entries, all of one moment; those that there are none of are
        left out."""
        of = {"ids": list(ids)}
        last_messages: dict[str, tuple[bytes | None, bytes | None]] = {}
        async with self._connection() as connection, connection.transaction():
            details = await (await connection.execute(scan_queries.READ_DETAILS, of)).fetchall()
            receipts = await (await connection.execute(scan_queries.READ_RECEIPTS, of)).fetchall()
            last_seqs = {row[0]: row[2] for row in details}
            ranges = {name: (last_seq - entries + 1, last_seq) for name, last_seq in last_seqs.items()}
            rows = await (await connection.execute(scan_queries.READ_RANGES, _asked(ranges))).fetchall()
            newest = _in_places(list(ranges), rows)
            for conversation_id, held in newest.items():
                last_messages[conversation_id] = _last_message(held)
                if last_messages[conversation_id][0] is None and last_seqs[conversation_id] > entries:
                    one = {"conversation_id": conversation_id}
                    found = await (await connection.execute(log_queries.READ_LAST_MESSAGE, one)).fetchone()
                    message, change = found or (None, None)
                    last_messages[conversation_id] = (message and message.encode(), change and change.encode())
        return _assemble(details, receipts, newest, last_messages)

    async def _pairs(self, query: Any, parameters: dict[str, Any]) -> list[tuple[str, int]]:
        return [(name, number) for name, number in await self._fetch(query, parameters)]


def _asked(ranges: Mapping[str, tuple[int, int]]) -> dict[str, Any]:
    return {
        "ids": list(ranges),
        "first_seqs": [first for first, _ in ranges.values()],
        "last_seqs": [last for _, last in ranges.values()],
    }


def _in_places(ids: Sequence[str], rows: Iterable[Row]) -> dict[str, list[LogEntry]]:
    found: list[list[LogEntry]] = [[] for _ in ids]
    for place, seq, event_id, event_type, payload in rows:
        found[place - 1].append(LogEntry(seq, event_id, event_type, payload.encode()))
    return dict(zip(ids, found, strict=True))


def _last_message(entries: Sequence[LogEntry]) -> tuple[bytes | None, bytes | None]:
    """The payloads of the last message among entries in seq order, and of the latest change of it."""
    for at in range(len(entries) - 1, -1, -1):
        if entries[at].event_type == "MessageSent":
            change = latest_changes(entries[at + 1 :]).get(entries[at].event_id)
            return entries[at].payload, None if change is None else change.payload
    return None, None


def _assemble(
    details: Iterable[Row],
    receipts: Iterable[Row],
    newest: Mapping[str, list[LogEntry]],
    last_messages: Mapping[str, tuple[bytes | None, bytes | None]],
) -> dict[str, ConversationSnapshot]:
    found: dict[str, ConversationSnapshot] = {}
    for conversation_id, title, last_seq, user_id, *stay in details:
        snapshot = found.get(conversation_id)
        if snapshot is None:
            message, change = last_messages[conversation_id]
            snapshot = found[conversation_id] = ConversationSnapshot(
                conversation_id, last_seq, title, {}, {}, message, change, newest[conversation_id]
            )
        if user_id is not None:
            snapshot.participants[user_id] = Participation(*stay)
    for conversation_id, user_id, *maxima in receipts:
        if conversation_id in found:
            found[conversation_id].receipts[user_id] = Receipt(*maxima)
    return found
