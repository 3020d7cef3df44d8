"""The course of a recovery: look, and if asked to, adopt the slots, bring back, and see it arrive."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from connectors.connect import ConnectClient, Deadline
from connectors.hold import writes_held
from connectors.recover.adopt import OutboxState, adopt, judge, read_outboxes, wait_passed
from connectors.recover.log import bring_back, find_first, read_ends, snapshot
from connectors.recover.model import Arrivals, Pace, Stretch, batches, find_missing
from connectors.recover.topic import Offsets, Told, TopicUnreadable, open_topic
from connectors.sessions import Session

BATCH_ENTRIES = 500
PROGRESS_SECONDS = 2.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    """How to recover. `since`: the time from which on something may be missing (None: whatever Kafka can prove).
    `per_second`: the most entries that are brought back in a second. `holds_writes`: whether the API takes no writes
    meanwhile, so that what is brought back comes before what is new."""

    since: datetime | None = None
    per_second: float = 2000.0
    holds_writes: bool = True
    wait_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class Findings:
    """What a look has found. `unadopted`: outboxes whose slots must be adopted, and why."""

    missing: tuple[Stretch, ...]
    told: Told
    unadopted: tuple[tuple[OutboxState, str], ...]

    @property
    def entries(self) -> int:
        """How many log entries were never streamed."""
        return sum(stretch.entries for stretch in self.missing)

    @property
    def conversations(self) -> int:
        """Of how many conversations."""
        return len({stretch.conversation_id for stretch in self.missing})


@dataclass(frozen=True, slots=True)
class Recovery:
    """One recovery's means. All methods raise DatabaseUnreachable, ConnectError, TopicUnreadable."""

    session: Session
    client: ConnectClient
    bootstrap: str
    options: Options
    say: Say

    def look(self) -> Findings:
        """What is wrong and what is missing; changes nothing. What a connector is still on its way with is waited for,
        so that it does not count as missing."""
        states = read_outboxes(self.session, self.client)
        unadopted = tuple((state, why) for state in states if (why := judge(state)) is not None)
        with snapshot(self.session) as position:
            for state in states:
                if judge(state) is None:
                    wait_passed(self.session, state.outbox, position, self._deadline())
            told = asyncio.run(self._read())
            since = told.since
            find = None if since is None else (lambda hole: find_first(self.session, hole, since))
            missing = tuple(find_missing(told.heard, read_ends(self.session, since), find))
        return Findings(missing, told, unadopted)

    def carry_out(self) -> Findings:
        """Adopts what must be adopted, brings back what is missing and waits until it has arrived. What it found and
        brought back. Ended in the middle, it goes on where it was when it is run again. Raises AlreadyHeld,
        LogDamaged too."""
        if not self.options.holds_writes:
            return self._carry_out()
        with writes_held(self.session, self.say):
            return self._carry_out()

    def _carry_out(self) -> Findings:
        for state in read_outboxes(self.session, self.client):
            why = judge(state)
            if why is not None:
                self.say(f"slot {state.outbox.slot} {why}")
                adopt(self.session, self.client, state.outbox, self._deadline(), self.say)
        findings = self.look()
        self.say(f"{findings.entries} entries of {findings.conversations} conversations were never streamed")
        if findings.missing:
            self._bring_back(findings)
            asyncio.run(self._see_arrive(findings.missing, findings.told.ends))
        return findings

    def _bring_back(self, findings: Findings) -> None:
        pace = Pace(self.options.per_second, time.monotonic())
        progress = _Progress("brought back", findings.entries, self.say)
        done = 0
        size = max(1, min(BATCH_ENTRIES, int(self.options.per_second)))
        for batch in batches(findings.missing, size):
            done += bring_back(self.session, batch)
            progress.show(done)
            time.sleep(pace.wait_seconds(done, time.monotonic()))

    async def _read(self) -> Told:
        async with open_topic(self.bootstrap) as topic:
            progress = _Progress("read", 0, self.say)
            return await topic.read(self.options.since, progress.show_of)

    async def _see_arrive(self, missing: tuple[Stretch, ...], starts: Offsets) -> None:
        arrivals = Arrivals(missing)
        progress = _Progress("arrived in Kafka", arrivals.awaited, self.say)
        async with open_topic(self.bootstrap) as topic:
            async for pairs in topic.follow(starts):
                for conversation_id, seq in pairs:
                    arrivals.take(conversation_id, seq)
                progress.show(arrivals.arrived)
                if arrivals.is_complete:
                    return
        raise TopicUnreadable(f"{arrivals.arrived} of {arrivals.awaited} entries arrived in Kafka.")

    def _deadline(self) -> Deadline:
        return Deadline(self.options.wait_seconds)


class _Progress:
    """Says how far something is, every few seconds and at its end."""

    def __init__(self, what: str, total: int, say: Say) -> None:
        self._what = what
        self._total = total
        self._say = say
        self._last = time.monotonic()

    def show(self, done: int) -> None:
        """Tells it if it is time to."""
        self.show_of(done, self._total)

    def show_of(self, done: int, total: int) -> None:
        """As `show`, of a total that may change."""
        now = time.monotonic()
        if now - self._last >= PROGRESS_SECONDS or (total and done >= total):
            self._last = now
            self._say(f"{self._what} {done} of {total}")
