"""One run of backfill: which conversations, how fast, how far it has got. What the backfill command and audit share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import TypeVar

from redis.exceptions import RedisError

from stream_apps.log_reader import LogUnavailable
from stream_apps.log_scanner import FIRST_ID, LogScanner
from stream_apps.rebuilding import Rebuilder, Rebuilt, split

PAGE_CONVERSATIONS = 2000
GROUP_CONVERSATIONS = 200
GROUP_ENTRIES = 4000
"""What is in memory at once, twice: while one group is written the next one is read."""

T = TypeVar("T")
AWAY = (LogUnavailable, RedisError)


@dataclass(frozen=True, slots=True)
class Selection:
    """The conversations of a run: these, or those with entries of a time span, or (neither) all."""

    ids: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None


@dataclass(slots=True)
class Progress:
    """How far a run has got. `conversations` are those looked at, of `total`."""

    total: int
    conversations: int = 0
    done: Rebuilt = field(default_factory=Rebuilt)
    started: float = field(default_factory=time.monotonic)

    def describe(self) -> str:
        """One line for a person."""
        seconds = max(time.monotonic() - self.started, 0.001)
        return (
            f"{self.conversations} of {self.total} conversations: {self.done.rebuilt} rebuilt, {self.done.current}"
            f" were as far; {self.done.entries} entries in {seconds:.1f} s ({self.done.entries / seconds:.0f}/s)"
        )


class Pace:
    """Holds a run back to so many entries per second; 0 is no limit."""

    def __init__(self, entries_per_second: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = entries_per_second
        self._clock = clock
        self._free_at = clock()

    def seconds_to_wait(self, entries: int) -> float:
        """How long to pause after so many entries."""
        if not self._rate:
            return 0.0
        now = self._clock()
        self._free_at = max(self._free_at, now) + entries / self._rate
        return self._free_at - now


class Backfill:
    """Runs a selection through the rebuilder. What is away is waited for, for `patience_seconds` at a time; then
    LogUnavailable or redis.RedisError is raised, and a new run goes on where the tables say."""

    def __init__(
        self,
        log: LogScanner,
        rebuilder: Rebuilder,
        *,
        pace: Pace,
        patience_seconds: float = 60.0,
        report: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        self._log = log
        self._rebuilder = rebuilder
        self._pace = pace
        self._patience_seconds = patience_seconds
        self._report = report

    async def run(self, selection: Selection, *, force: bool = False) -> Progress:
        """Until the last conversation is done."""
        progress = Progress(total=await self._patiently(partial(self._total, selection)))
        async for last_seqs in self._pages(selection):
            for group in split(last_seqs, entries=GROUP_ENTRIES, conversations=GROUP_CONVERSATIONS):
                done = await self._patiently(partial(self._rebuilder.rebuild, group, force=force))
                progress.done.add(done)
                progress.conversations += len(group)
                self._report(progress)
                await asyncio.sleep(self._pace.seconds_to_wait(done.entries))
        return progress

    async def _total(self, selection: Selection) -> int:
        if selection.ids or selection.since:
            return len(await self._chosen(selection))
        return await self._log.count_conversations()

    async def _pages(self, selection: Selection) -> AsyncIterator[dict[str, int]]:
        if selection.ids or selection.since:
            yield await self._patiently(partial(self._chosen, selection))
            return
        after = FIRST_ID
        while page := await self._patiently(
            partial(self._log.read_conversations, after=after, limit=PAGE_CONVERSATIONS)
        ):
            yield page
            after = next(reversed(page))

    async def _chosen(self, selection: Selection) -> dict[str, int]:
        if selection.ids:
            last_seqs = await self._log.read_last_seqs(selection.ids)
            return {name: last_seqs.get(name, 0) for name in selection.ids}
        until = selection.until or await self._log.read_clock()
        touched = await self._log.read_touched(since=selection.since or until, until=until)
        return {name: seqs.last_seq for name, seqs in touched.items()}

    async def _patiently(self, work: Callable[[], Awaitable[T]]) -> T:
        deadline = time.monotonic() + self._patience_seconds
        pause = 0.1
        while True:
            try:
                return await work()
            except AWAY:
                if time.monotonic() + pause > deadline:
                    raise
                # Redis may have come back empty: what was done for users may be undone.
                self._rebuilder.forget_users()
                await asyncio.sleep(pause)
                pause = min(2 * pause, 2.0)
