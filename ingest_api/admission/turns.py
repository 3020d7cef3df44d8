"""How many commands are worked on at once, and who is next when more come: the oldest, but in a crowd the newest.

Under overload a fair queue makes everyone late. Here those who came last are answered at the usual speed, as many as
the machine can serve, and the others are told to come back after they have waited for `patience_seconds`: refusing
costs little then, because a connection cannot be refused again before it has waited again. (Adaptive LIFO, as in
Maurer, "Fail at Scale", ACM Queue 13(8), 2015.)
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import Callable

from prometheus_client import CollectorRegistry

from ingest_api.admission.refusals import Overloaded
from ingest_api.catalogue import CATALOGUE
from ingest_api.instruments import Instruments

CROWD = 2
"""So many times as many as have a turn may wait in a fair queue: they are served in a moment."""


class TurnMetrics:
    """What the turns count."""

    def __init__(self, registry: CollectorRegistry) -> None:
        make = Instruments(registry, CATALOGUE)
        self.serving = make.gauge("ingest_api_commands_served")
        self.waiting = make.gauge("ingest_api_commands_waiting")
        self.refused_total = make.counter("ingest_api_commands_refused_total")


class Turns:
    """At most `limit` commands have a turn. Take one, give it back."""

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
        self._crowd = CROWD * limit
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
        """Ends a turn: one of those that wait has the next one."""
        while self._waiting:
            turn, _ = self._waiting.popitem(last=len(self._waiting) > self._crowd)
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
        retry_after = 1 + round(4 * self._jitter())
        return Overloaded(
            f"More comes in than can be served; nothing was stored. Repeat it in {retry_after} s.",
            headers={"Retry-After": str(retry_after)},
        )
