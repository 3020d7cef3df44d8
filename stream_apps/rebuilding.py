"""Rebuilds Redis tables from Postgres, many at a time, beside the live timeline app (docs/adr says why that is safe).

What backfill and audit share. It writes by the timeline app's own scripts, and never takes a table back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from redis.asyncio import Redis

from schemas import redis_keys
from schemas.redis_keys import TIMELINE_LENGTH
from stream_apps.log_reader import ConversationSnapshot
from stream_apps.log_scanner import LogScanner
from stream_apps.redis_tables.tables import Head, MembershipChange, RedisTables, is_no_table

TRIES = 5
PAUSE_SECONDS = 0.5
"""A table that has moved on since it was read is tried again, and one that seems to be ahead of Postgres too: a record
may reach Redis a moment before other transactions see its row. Only what lasts is taken for true."""

MOST_USERS = 100_000
"""How many users are remembered as done."""


@dataclass(slots=True)
class Rebuilt:
    """What became of some conversations. `entries` were written; `current` were as far already; `unknown` are not in
    Postgres; `moved` got new entries so quickly that they could not be replaced."""

    rebuilt: int = 0
    current: int = 0
    entries: int = 0
    users: int = 0
    unknown: list[str] = field(default_factory=list)
    moved: list[str] = field(default_factory=list)

    def add(self, other: Rebuilt) -> None:
        """Sums up."""
        self.rebuilt += other.rebuilt
        self.current += other.current
        self.entries += other.entries
        self.users += other.users
        self.unknown += other.unknown
        self.moved += other.moved


class Rebuilder:
    """Raises LogUnavailable and redis.RedisError; whatever was called may then be called again."""

    def __init__(self, log: LogScanner, redis: Redis) -> None:
        self._log = log
        self._redis = redis
        self._tables = RedisTables(redis)
        self._complete_users: set[str] = set()

    def forget_users(self) -> None:
        """Redis may have lost tables: users are looked at anew."""
        self._complete_users.clear()

    async def rebuild(self, ids: Iterable[str], *, force: bool = False) -> Rebuilt:
        """Rebuilds those of the conversations whose tables are missing or behind; with `force` also those that are as
        far as Postgres, or, which cannot be, further. Then sees to it that their participants' tables know them."""
        done = Rebuilt()
        waiting = list(dict.fromkeys(ids))
        for attempt in range(TRIES):
            if attempt:
                await asyncio.sleep(PAUSE_SECONDS)
            waiting = await self._rebuild_once(waiting, done, force=force, is_last=attempt == TRIES - 1)
            if not waiting:
                break
        done.moved += waiting
        return done

    async def _rebuild_once(self, ids: Sequence[str], done: Rebuilt, *, force: bool, is_last: bool) -> list[str]:
        """One try; those conversations that have to be tried again."""
        heads = await self.read_heads(ids)
        if force:
            stale: Sequence[str] = ids
        else:
            last_seqs = await self._log.read_last_seqs(ids)
            done.unknown += [name for name in ids if name not in last_seqs]
            stale = [name for name, seq in last_seqs.items() if name not in heads or heads[name].seq < seq]
            done.current += len(last_seqs) - len(stale)
        snapshots = await self._log.read_snapshots(stale, entries=TIMELINE_LENGTH) if stale else {}
        if force:
            done.unknown += [name for name in ids if name not in snapshots]
        ahead = [name for name, one in snapshots.items() if force and name in heads and heads[name].seq > one.seq]
        ready = [one for name, one in snapshots.items() if is_last or name not in ahead]
        if not ready:
            return ahead
        written = await self._tables.rebuild_many(
            [(one, heads.get(one.conversation_id) if force else None) for one in ready]
        )
        again = [] if is_last else ahead
        for snapshot, is_written in zip(ready, written, strict=True):
            if is_written is None:
                await self.drop([snapshot.conversation_id])
                again.append(snapshot.conversation_id)
            elif is_written:
                done.rebuilt += 1
                done.entries += len(snapshot.entries)
            elif force:
                again.append(snapshot.conversation_id)
            else:
                done.current += 1
        done.users += await self._note_participants(ready)
        return again

    async def read_heads(self, ids: Iterable[str]) -> dict[str, Head]:
        """The heads of those conversations that have one."""
        names = list(ids)
        async with self._redis.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.hmget(redis_keys.head_key(name), redis_keys.HEAD_EPOCH, redis_keys.HEAD_SEQ)
            answers = await pipeline.execute(raise_on_error=False)
        heads: dict[str, Head] = {}
        for name, answer in zip(names, answers, strict=True):
            if not is_no_table(answer) and answer[1] is not None:
                heads[name] = Head((answer[0] or b"").decode(), int(answer[1]))
        return heads

    async def _note_participants(self, snapshots: Iterable[ConversationSnapshot]) -> int:
        """Makes the participants' tables know the conversations; how many tables had to be built."""
        changes: list[MembershipChange] = []
        for snapshot in snapshots:
            for user_id, (joined_seq, left_seq, _) in snapshot.participants.items():
                if user_id in self._complete_users:
                    continue
                changes.append(MembershipChange(user_id, snapshot.conversation_id, joined_seq))
                if left_seq is not None:
                    changes.append(MembershipChange(user_id, snapshot.conversation_id, left_seq, has_left=True))
        built = 0
        for some in _slices(changes, 2000):
            incomplete = await self._tables.note_memberships(some)
            await self._build_users(incomplete)
            built += len(incomplete)
        return built

    async def _build_users(self, user_ids: Sequence[str]) -> None:
        """From all that Postgres knows of them, so that they need not be looked at again."""
        for some in _slices(user_ids, 200):
            for user_id, stays in (await self._log.read_stays_of_users(some)).items():
                await self._tables.build_user(user_id, stays)
        if len(self._complete_users) + len(user_ids) > MOST_USERS:
            self._complete_users.clear()
        self._complete_users.update(user_ids)

    async def drop(self, ids: Iterable[str]) -> None:
        """Removes the tables of conversations, whatever is in their place. Absent is safe: readers go to Postgres."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            for name in ids:
                pipeline.unlink(*redis_keys.conversation_keys(name))
            await pipeline.execute()


T = TypeVar("T")


def _slices(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for at in range(0, len(items), size):
        yield items[at : at + size]


def split(last_seqs: Mapping[str, int], *, entries: int, conversations: int) -> Iterator[list[str]]:
    """The conversations in groups that a rebuild takes at once: so many, with so many entries, at the most (but one
    at least)."""
    group: list[str] = []
    weight = 0
    for name, last_seq in last_seqs.items():
        held = min(last_seq, TIMELINE_LENGTH)
        if group and (weight + held > entries or len(group) >= conversations):
            yield group
            group, weight = [], 0
        group.append(name)
        weight += held
    if group:
        yield group
