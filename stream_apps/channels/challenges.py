"""Sends verification codes: each until it was taken, or a few times."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from typing import Any

from schemas.channels import verification_code
from stream_apps.channels.dispatcher import Means
from stream_apps.channels.model import Adapter, Delivered, Refused

logger = logging.getLogger(__name__)

PAUSES_SECONDS = (1.0, 4.0, 15.0, 60.0, 240.0)
CODES_AT_ONCE = 16
RESUMING = "resuming"
"""Name of the task that finds what is to be sent; the others are named for their channel."""


class Challenges:
    """One task per code. A code that was under way when the process ended is sent when it starts again."""

    def __init__(
        self, adapters: Mapping[str, Adapter], means: Means, *, pauses_seconds: tuple[float, ...] = PAUSES_SECONDS
    ) -> None:
        self._adapters = adapters
        self._store = means.store
        self._metrics = means.metrics
        self._is_passing = means.is_passing
        self._on_error = means.on_error
        self._pauses_seconds = pauses_seconds
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(CODES_AT_ONCE)

    async def open(self) -> None:
        """Nothing: `resume` finds what is to be sent."""

    async def close(self) -> None:
        """Ends all tasks."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def resume(self) -> None:
        """Sends, on the side, the codes that are still to be sent."""
        if RESUMING not in self._tasks:
            self._start(RESUMING, self._resume())

    def send(self, channel_id: str) -> None:
        """Sends a channel's code, unless that is under way."""
        if channel_id not in self._tasks:
            self._start(channel_id, self._send(channel_id))

    def _start(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = self._tasks[name] = asyncio.create_task(self._guard(work))
        task.add_done_callback(lambda _: self._tasks.pop(name, None))

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:
            self._on_error(error)

    async def _resume(self) -> None:
        while True:
            try:
                channel_ids = await self._store.find_challenges()
            except Exception as error:
                if not self._is_passing(error):
                    raise
                await asyncio.sleep(1.0)
            else:
                break
        for channel_id in channel_ids:
            self.send(channel_id)

    async def _send(self, channel_id: str) -> None:
        for pause in (*self._pauses_seconds, 0.0):
            if await self._try(channel_id):
                return
            await asyncio.sleep(pause)

    async def _try(self, channel_id: str) -> bool:
        """Whether there is nothing more to do."""
        try:
            target = await self._store.find_unverified(channel_id)
            if target is None or target.channel not in self._adapters:
                return True
            # The oldest secret is the one that the channel was set with.
            code = verification_code(target.secrets[-1], channel_id)
            async with self._slots:
                outcome = await self._adapters[target.channel].challenge(target, code)
            self._metrics.challenges_total.labels(target.channel, type(outcome).__name__.lower()).inc()
            if isinstance(outcome, Delivered):
                await self._store.mark_challenged(channel_id)
                return True
            await self._store.mark_failing(channel_id, outcome.reason)
            return isinstance(outcome, Refused)
        except Exception as error:
            if not self._is_passing(error):
                raise
            logger.warning("a verification code waits: %s: %s", type(error).__name__, error)
            return False
