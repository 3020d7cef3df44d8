"""When more comes in than can be served, the rest waits outside, unread: a connection whose command is not even parsed
costs next to nothing, and the newest is let in first.

Under overload a fair queue makes everyone late. Here those who came last are answered at the usual speed, as many as
the machine can serve, and the others are told to come back after they have waited for `patience_seconds`: refusing
costs little then, because a connection cannot be refused again before it has waited again. Who has waited for more than
`fresh_seconds` is let in only when nobody new comes, as after a burst: otherwise whatever room a moment's lull makes
would go to those who are late already. (Adaptive LIFO and controlled delay, as in Maurer, "Fail at Scale", ACM Queue
13(8), 2015.)
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from typing import Protocol

from ingest_api.admission.turns import TurnMetrics

IN_LINE = 3
"""So many times as many as have a turn may be inside before there is a crowd: they are served in a moment."""
IN_LINE_OF_A_CROWD = 1.25
"""In a crowd, so many times as many: enough that no turn is free for long, few enough that nobody inside waits long."""
FRESH_SECONDS = 0.03
LOOK_SECONDS = 0.02
"""How often a crowd is looked through for those whose patience has ended, and whether nobody new has come."""
QUIET_LOOKS = 3
"""So many looks in a row without anybody new: between two of them whatever has come over the network was read, also
when the event loop stood still."""


class Held(Protocol):
    """A connection whose command waits outside."""

    def let_in(self) -> None:
        """Goes on with the command, which is inside now."""

    def refuse(self) -> None:
        """Answers the command: 503."""


class Crowd:
    """Counts the commands inside, holds the connections outside. `served` is how many have a turn at once."""

    def __init__(
        self,
        *,
        served: int,
        most_held: int,
        patience_seconds: float,
        metrics: TurnMetrics,
        fresh_seconds: float = FRESH_SECONDS,
    ) -> None:
        self._most_inside = served * IN_LINE
        self._most_inside_of_a_crowd = round(served * IN_LINE_OF_A_CROWD)
        self._most_held = most_held
        self._patience_seconds = patience_seconds
        self._fresh_seconds = fresh_seconds
        self._metrics = metrics
        self._inside = 0
        self._held: OrderedDict[Held, float] = OrderedDict()  # since when, in the order of arrival
        self._quiet_looks = 0
        self._timer: asyncio.TimerHandle | None = None
        metrics.held.set_function(lambda: len(self._held))

    def enter(self) -> bool:
        """Whether the command may go on now; it is inside then."""
        self._quiet_looks = 0
        if self._inside >= (self._most_inside_of_a_crowd if self._held else self._most_inside):
            return False
        self._inside += 1
        return True

    def leave(self) -> None:
        """A command that was inside is answered, or its connection is gone: the newest of those outside come in."""
        self._inside -= 1
        if self._held:
            self._let_in(since=asyncio.get_running_loop().time() - self._fresh_seconds)

    def hold(self, connection: Held) -> None:
        """The connection's command waits until it is let in or refused."""
        if len(self._held) >= self._most_held:
            self._refuse(connection)
            return
        loop = asyncio.get_running_loop()
        self._held[connection] = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(LOOK_SECONDS, self._look, loop)

    def forget(self, connection: Held) -> None:
        """The connection waits no longer (it is gone)."""
        self._held.pop(connection, None)

    def _let_in(self, since: float) -> None:
        """Those who have come since then, the newest first, as far as there is room."""
        while self._held and self._inside < self._most_inside_of_a_crowd:
            connection, came_at = self._held.popitem()
            if came_at < since:
                self._held[connection] = came_at
                return
            self._inside += 1
            connection.let_in()

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = loop.time()
        while self._held and next(iter(self._held.values())) <= now - self._patience_seconds:
            connection, _ = self._held.popitem(last=False)
            self._refuse(connection)
        self._quiet_looks += 1
        self._let_in(since=-math.inf if self._quiet_looks >= QUIET_LOOKS else now - self._fresh_seconds)
        if self._held:
            self._timer = loop.call_later(LOOK_SECONDS, self._look, loop)

    def _refuse(self, connection: Held) -> None:
        self._metrics.refused_total.inc()
        connection.refuse()
