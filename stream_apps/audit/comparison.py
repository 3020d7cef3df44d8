"""Fetches a conversation's copies and has them compared. Each copy in Redis is read before the log, never after: what
the table has and the log has not is then no matter of time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from schemas.redis_keys import TIMELINE_LENGTH, Stay
from stream_apps.audit.checker import (
    Copied,
    Fault,
    HeldTable,
    Kind,
    Place,
    check_density,
    check_records,
    check_state,
    check_table,
    first_expected,
)
from stream_apps.audit.tables import TableReader
from stream_apps.log_reader import ConversationSnapshot
from stream_apps.log_scanner import LogScanner

CHECKED_LENGTH = TIMELINE_LENGTH + 200
"""A timeline is trimmed by whole nodes of the stream, so it may hold some more than TIMELINE_LENGTH."""


class Window(NamedTuple):
    """The entries of a conversation that are looked at: from `first_seq` on. The table has to have those up to
    `settled_seq`."""

    first_seq: int
    settled_seq: int


class Comparison:
    """Raises LogUnavailable and redis.RedisError."""

    def __init__(self, log: LogScanner, tables: TableReader) -> None:
        self._log = log
        self._tables = tables
        self.entries = 0
        """How many log entries were compared, since the start."""

    async def compare_windows(self, windows: Mapping[str, Window]) -> list[Fault]:
        """What is wrong with the newest part of conversations' tables."""
        if not windows:
            return []
        first_seqs = {
            name: max(1, window.first_seq, window.settled_seq - TIMELINE_LENGTH + 1) for name, window in windows.items()
        }
        held = await self._tables.read_timelines(first_seqs)
        last_seqs = await self._log.read_last_seqs(windows)
        truth = await self._log.read_ranges({name: (first_seqs[name], last_seqs.get(name, 0)) for name in windows})
        faults: list[Fault] = []
        for name, window in windows.items():
            self.entries += len(truth[name])
            faults += check_table(
                name,
                truth[name],
                held.get(name),
                first_seq=first_seqs[name],
                settled_seq=window.settled_seq,
                last_seq=last_seqs.get(name, 0),
            )
        return faults

    async def compare_whole(self, ids: Iterable[str]) -> list[Fault]:
        """What is wrong with conversations' logs, with all that their tables hold, and with what their participants'
        tables say of them."""
        names = list(ids)
        settled = await self._log.read_last_seqs(names)
        held = await self._tables.read_whole(names)
        stays = await self._tables.read_stays({name: table.participants or () for name, table in held.items()})
        snapshots = await self._log.read_snapshots(names, entries=CHECKED_LENGTH)
        densities = await self._log.read_density(names)
        faults: list[Fault] = []
        for name in names:
            snapshot = snapshots.get(name)
            if snapshot is None:
                if name in held:
                    faults.append(Fault(Place.REDIS, Kind.PHANTOM, name, 0, "Postgres has no such conversation"))
                continue
            if name in densities:
                faults += check_density(name, densities[name])
            faults += self._compare_table(held.get(name), snapshot, settled_seq=settled.get(name, 0))
        return faults + _check_stays(stays, snapshots)

    def _compare_table(
        self, held: HeldTable | None, snapshot: ConversationSnapshot, *, settled_seq: int
    ) -> list[Fault]:
        self.entries += len(snapshot.entries)
        first_seq = first_expected(held, snapshot)
        if held is not None:
            held.entries = [entry for entry in held.entries if entry.seq >= first_seq]
        faults = check_table(
            snapshot.conversation_id,
            [entry for entry in snapshot.entries if entry.seq >= first_seq],
            held,
            first_seq=first_seq,
            settled_seq=settled_seq,
            last_seq=snapshot.seq,
        )
        return faults if held is None else faults + check_state(held, snapshot)

    async def find_unknown(self, ids: Sequence[str]) -> list[Fault]:
        """Those conversations that Redis has a table of and Postgres does not know."""
        known = await self._log.read_last_seqs(ids)
        return [
            Fault(Place.REDIS, Kind.PHANTOM, name, 0, "Postgres has no such conversation")
            for name in dict.fromkeys(ids)
            if name not in known
        ]

    async def compare_records(self, records: Sequence[Copied]) -> list[Fault]:
        """What is wrong with what records say; their order is told by a Follower."""
        by_conversation: dict[str, list[Copied]] = {}
        for record in records:
            by_conversation.setdefault(record.conversation_id, []).append(record)
        ranges = {
            name: (min(r.entry.seq for r in own) - 1, max(r.entry.seq for r in own) + 1)
            for name, own in by_conversation.items()
        }
        truth = await self._log.read_ranges(ranges) if ranges else {}
        faults: list[Fault] = []
        for name, own in by_conversation.items():
            self.entries += len(own)
            faults += check_records(own, truth[name])
        return faults


def _check_stays(
    stays: Mapping[tuple[str, str], Stay | None], snapshots: Mapping[str, ConversationSnapshot]
) -> list[Fault]:
    faults: list[Fault] = []
    for (name, user_id), stay in stays.items():
        snapshot = snapshots.get(name)
        true = snapshot.participants.get(user_id) if snapshot else None
        if true is not None and stay != Stay(true.joined_seq, true.left_seq):
            detail = f"the table of user {user_id} does not say what Postgres says of this conversation"
            faults.append(Fault(Place.REDIS, Kind.STATE, name, 0, detail))
    return faults
