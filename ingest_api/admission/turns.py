"""How many commands are worked on at once. Those that come meanwhile wait in line; how long that line gets is the
crowd's to say (crowd.py), which holds back the rest unread."""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import Callable

from prometheus_client import CollectorRegistry

from infra.telemetry.instruments import Instruments
from ingest_api.admission.refusals import Overloaded, overloaded
from ingest_api.catalogue import CATALOGUE


class TurnMetrics:
    """What the turns and the crowd before them count."""

    def __init__(self, registry: CollectorRegistry) -> None:
        make = Instruments(registry, CATALOGUE)
        self.serving = make.gauge("ingest_api_commands_served")
        self.waiting = make.gauge("ingest_api_commands_waiting")
        self.held = make.gauge("ingest_api_commands_held")
        self.refused_total = make.counter("ingest_api_commands_refused_total")


class Turns:
    """At most `limit` commands have a turn, the oldest that waits is next. Take one, give it back."""

    def __init__(
        self,
        *,
        limit: int,
        most_waiting: int,
        patience_seconds: float,
        metrics: TurnMetrics,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._limit = limit
        self._most_waiting = most_waiting
        self._patience_seconds = patience_seconds
        self._metrics = metrics
        self._jitter = jitter
        self._taken = 0
        self._waiting: OrderedDict[asyncio.Future[None], None] = OrderedDict()  # in the order of arrival
        metrics.serving.set_function(lambda: self._taken)
        metrics.waiting.set_function(lambda: len(self._waiting))

    def take_now(self) -> bool:
        """Takes a turn if one is free."""
        if self._taken < self._limit:
            self._taken += 1
            return True
        return False

    async def wait(self) -> None:
        """Takes a turn when one is given back. Raises Overloaded."""
        if len(self._waiting) >= self._most_waiting:
            raise self._refusal()
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting[turn] = None
        timer = loop.call_later(self._patience_seconds, self._give_up, turn)
        try:
            await turn
        except asyncio.CancelledError:
            if self._waiting.pop(turn, False) is False and not turn.cancelled():
                self.give_back()  # its turn had just come
            raise
        finally:
            timer.cancel()

    def give_back(self) -> None:
        """Ends a turn: the one that has waited longest has the next one."""
        while self._waiting:
            turn, _ = self._waiting.popitem(last=False)
            if not turn.done():  # a cancelled one may still be listed
                turn.set_result(None)
                return
        self._taken -= 1

    def _give_up(self, turn: asyncio.Future[None]) -> None:
        self._waiting.pop(turn, None)
        if not turn.done():
            turn.set_exception(self._refusal())

    def _refusal(self) -> Overloaded:
        self._metrics.refused_total.inc()
        return overloaded(self._jitter())
