"""Delivers what is noted in Postgres: a task per target that has something to deliver, so that none waits for another.

Order is kept per target and conversation: a letter is sent when the one before it was taken. A task reads what is next
when it can send it, so a target that is away costs a sleeping task and some rows in Postgres, however much waits for
it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from infra.telemetry.spans import Recorder
from stream_apps.channels.model import Adapter, Delivered, Health, Outcome, Refused, Target, TryLater, Unavailable
from stream_apps.channels.outcomes import Outcomes, Result
from stream_apps.channels.spans import record_letter
from stream_apps.channels.store import NIL, Line, Page, Store
from stream_apps.telemetry import ChannelMetrics

logger = logging.getLogger(__name__)

LINES_AT_ONCE = 8
"""Letters that one target is sent at once, each of another conversation."""
LETTERS_AT_ONCE = 256
"""Of all targets of a channel together."""
RETRY_SECONDS = 1.0
"""How long Postgres or Kafka is left alone that did not answer."""
CLOSE_SECONDS = 8.0


@dataclass(frozen=True, slots=True)
class Means:
    """What deliveries work with. `is_passing` says whether an error means that something is away; any other one goes to
    `on_error`, which is to end the process: what was not noted as delivered is delivered again."""

    store: Store
    outcomes: Outcomes
    metrics: ChannelMetrics
    is_passing: Callable[[Exception], bool]
    on_error: Callable[[Exception], object]
    recorder: Recorder | None = None


class Patience(NamedTuple):
    """How long a failing target is borne: seconds between two tries at the most, and until it is disabled."""

    longest_pause_seconds: float
    give_up_seconds: float


@dataclass(slots=True)
class _Run:
    """A target's task. `after` is the conversation that the next round begins behind: all get their turn."""

    channel_id: str
    is_wanted: bool = True
    after: str = NIL
    health: Health | None = None
    task: asyncio.Task[None] | None = None


class Dispatcher:
    """The targets of one channel. Wake it when something was noted; open it first, close it last."""

    def __init__(self, channel: str, adapter: Adapter, means: Means, patience: Patience) -> None:
        self._channel = channel
        self._adapter = adapter
        self._store = means.store
        self._outcomes = means.outcomes
        self._metrics = means.metrics
        self._is_passing = means.is_passing
        self._on_error = means.on_error
        self._recorder = means.recorder
        self._patience = patience
        self._partitions: frozenset[int] = frozenset()
        self._runs: dict[str, _Run] = {}
        self._slots = asyncio.Semaphore(LETTERS_AT_ONCE)
        self._taking_over: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    async def open(self) -> None:
        """Opens the adapter, and begins to count."""
        await self._adapter.open()
        self._metrics.targets.labels(self._channel).set_function(lambda: len(self._runs))
        self._metrics.open_circuits.labels(self._channel).set_function(
            lambda: sum(run.health is not None and run.health.is_open for run in self._runs.values())
        )

    async def close(self) -> None:
        """Sends nothing new, waits for what is being sent (not for ever), and closes the adapter."""
        self._closing.set()
        tasks = [run.task for run in self._runs.values() if run.task is not None]
        if self._taking_over is not None:
            tasks.append(self._taking_over)
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=CLOSE_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self._adapter.close()

    def take_over(self, partitions: Collection[int]) -> None:
        """From now on the lines of these partitions are ours to deliver, and no others."""
        self._partitions = frozenset(partitions)
        if self._closing.is_set():
            return
        if self._taking_over is not None:
            self._taking_over.cancel()
        self._taking_over = asyncio.create_task(self._guard(self._take_over()))

    def wake(self, channel_ids: Iterable[str]) -> None:
        """Something was noted for these channels."""
        for channel_id in channel_ids:
            run = self._runs.get(channel_id)
            if run is not None:
                run.is_wanted = True
            elif not self._closing.is_set():
                run = self._runs[channel_id] = _Run(channel_id)
                run.task = asyncio.create_task(self._guard(self._deliver_all(run)))

    async def _guard(self, work: Awaitable[None]) -> None:
        try:
            await work
        except Exception as error:
            if not (self._closing.is_set() and self._is_passing(error)):
                self._on_error(error)

    async def _take_over(self) -> None:
        async def find() -> None:
            self.wake(await self._store.find_channels_behind(self._channel, self._partitions))

        await self._until_done(find)

    async def _deliver_all(self, run: _Run) -> None:
        """Returns when nothing is left to deliver."""
        try:
            while not self._closing.is_set():
                run.is_wanted = False
                try:
                    target = await self._store.find_target(run.channel_id)
                    if target is None:
                        return
                    if run.health is None:
                        run.health = self._new_health(target)
                    lines = await self._next_lines(run, is_probe=run.health.is_open)
                    if not lines and not run.is_wanted:
                        return
                    outcomes = await self._round(target, lines)
                    pause = run.health.note(outcomes)
                    await self._judge(target, outcomes)
                except Exception as error:
                    if not self._is_passing(error):
                        raise
                    logger.warning("deliveries wait: %s: %s", type(error).__name__, error)
                    pause = RETRY_SECONDS
                if pause:
                    await self._sleep(pause)
        finally:
            self._runs.pop(run.channel_id, None)

    def _new_health(self, target: Target) -> Health:
        longest = self._patience.longest_pause_seconds
        return Health(longest_pause_seconds=longest, random=random.random, is_failing=target.is_failing)

    async def _next_lines(self, run: _Run, *, is_probe: bool) -> list[Line]:
        limit = 1 if is_probe else LINES_AT_ONCE
        after, run.after = run.after, NIL
        lines = await self._store.find_lines_behind(run.channel_id, self._partitions, after=after, limit=limit)
        if not lines and after != NIL:
            lines = await self._store.find_lines_behind(run.channel_id, self._partitions, after=NIL, limit=limit)
        if len(lines) == limit:
            run.after = lines[-1].conversation_id
        return lines

    async def _round(self, target: Target, lines: list[Line]) -> list[Outcome]:
        """Sends the next letter of each line, and tells and notes what became of them."""
        tried = await asyncio.gather(*(self._send(target, line) for line in lines))
        results = [Result(page.letter, outcome) for page, outcome in tried if page.letter is not None]
        advanced = [
            line._replace(delivered_seq=page.up_to_seq)
            for line, (page, outcome) in zip(lines, tried, strict=True)
            if isinstance(outcome, Delivered)
        ]
        # What the target has must not be sent again because something else is away.
        await self._until_done(lambda: self._outcomes.tell(target, results))
        if advanced:
            await self._until_done(lambda: self._store.advance(advanced))
        return [outcome for _, outcome in results]

    async def _send(self, target: Target, line: Line) -> tuple[Page, Outcome]:
        page = await self._store.read_page(line, target.user_id)
        if page.letter is None:
            return page, Delivered()
        async with self._slots:
            started, started_ns = time.perf_counter(), time.time_ns()
            try:
                outcome = await self._adapter.deliver(target, page.letter)
            except Exception:
                logger.exception("the adapter of %s failed; its letter is tried again", self._channel)
                outcome = Unavailable("The server failed to send.")
        self._metrics.delivery_seconds.labels(self._channel).observe(time.perf_counter() - started)
        self._metrics.deliveries_total.labels(self._channel, type(outcome).__name__.lower()).inc()
        if self._recorder is not None:
            record_letter(self._recorder, self._channel, page.letter, outcome, started_ns)
        if isinstance(outcome, Delivered):
            self._metrics.messages_total.labels(self._channel).inc(len(page.letter.messages))
        return page, outcome

    async def _judge(self, target: Target, outcomes: list[Outcome]) -> None:
        """Notes whether the target fails, and disables its channel when it has done so for too long."""
        if any(isinstance(outcome, Delivered) for outcome in outcomes):
            if target.is_failing:
                await self._store.mark_healthy(target.channel_id)
            return
        failed = [outcome for outcome in outcomes if isinstance(outcome, Refused | TryLater)]
        if not failed:
            return
        last = next((outcome for outcome in failed if isinstance(outcome, Refused)), failed[-1])
        failing_seconds = await self._store.mark_failing(target.channel_id, last.reason)
        if not isinstance(last, Refused) and failing_seconds < self._patience.give_up_seconds:
            return
        if await self._store.disable(target.channel_id, last.reason):
            self._metrics.disabled_total.labels(self._channel).inc()
            logger.warning("the channel %s is disabled: %s", target.channel_id, last.reason)

    async def _until_done(self, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await work()
            except Exception as error:
                if not self._is_passing(error) or self._closing.is_set():
                    raise
                logger.warning("%s: %s; tried again", type(error).__name__, error)
                await self._sleep(RETRY_SECONDS)
            else:
                return

    async def _sleep(self, seconds: float) -> None:
        """Ends early when the dispatcher closes."""
        try:
            await asyncio.wait_for(self._closing.wait(), seconds)
        except TimeoutError:
            return
