"""Per-conversation parking: records that cannot be applied just now wait here, conversation by conversation, and
everything else goes on.

Their batch is not acknowledged before they are settled, so a process that ends meanwhile gets them again. They are
tried again, ever less often; what still cannot be applied after a while becomes a dead letter.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from prometheus_client import Gauge

from stream_apps.records import Record

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.1
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 2.0
PARKED_RECORDS = 10_000
"""What may be parked altogether. When there is more, the conversation that has been here longest is given up."""


@dataclass(frozen=True, slots=True)
class Left:
    """The records of one conversation that cannot be applied just now, for a reason that is this conversation's
    alone."""

    records: Sequence[Record]
    reason: str


class Desk(Protocol):
    """Who applies the records of one conversation, and sets them aside when that stays impossible. Raises what says
    that something is away."""

    async def apply_one(self, conversation_id: str, records: Sequence[Record]) -> Left | None:
        """Applies them; what is left."""

    async def give_up(self, records: Sequence[Record], reason: str) -> None:
        """Sets them aside."""


@dataclass(slots=True)
class _Parked:
    next_try: float
    settled: asyncio.Future[None]
    pause: float = FIRST_PAUSE_SECONDS
    waited: float = 0.0
    records: dict[tuple[str, int, int], Record] = field(default_factory=dict)


class ParkingLot:
    """The conversations that have records here. Each is tried again for `seconds`; the time while something is away
    does not count (`is_passing` tells such errors)."""

    def __init__(
        self,
        seconds: float,
        *,
        conversations: Gauge,
        is_passing: Callable[[Exception], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._seconds = seconds
        self._gauge = conversations
        self._is_passing = is_passing
        self._clock = clock
        self._parked: dict[str, _Parked] = {}
        self.is_used = asyncio.Event()
        """Set while somebody is here."""

    def __contains__(self, conversation_id: str) -> bool:
        return conversation_id in self._parked

    def park(self, conversation_id: str, left: Left) -> asyncio.Future[None]:
        """Keeps the records, with those that the conversation has here already. The future is done when all of them
        are applied or set aside, and cancelled when they will come again."""
        parked = self._parked.get(conversation_id)
        if parked is None:
            logger.warning("conversation %s is parked: %s", conversation_id, left.reason)
            settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            parked = self._parked[conversation_id] = _Parked(self._clock() + FIRST_PAUSE_SECONDS, settled)
            self._count()
        for record in left.records:  # a batch that is retried brings them again
            parked.records[_origin(record)] = record
        return parked.settled

    def clear(self) -> None:
        """Forgets everybody: what is not acknowledged will come again, here or elsewhere."""
        for parked in self._parked.values():
            parked.settled.cancel()
        self._parked.clear()
        self._count()

    async def attend(self, desk: Desk) -> None:
        """Tries those whose time has come, who came first before who came later. Raises what the desk raises unless it
        is passing."""
        for conversation_id, parked in list(self._parked.items()):
            if self._clock() >= parked.next_try or self._is_crowded():
                try:
                    is_settled = await self._settle(desk, conversation_id, parked)
                except Exception as error:
                    if not self._is_passing(error):
                        raise
                    is_settled = False
                if is_settled:
                    self._let_go(conversation_id, parked)
                else:
                    self._postpone(parked)

    async def _settle(self, desk: Desk, conversation_id: str, parked: _Parked) -> bool:
        """Whether no record is left. More may come while these are applied."""
        while parked.records:
            records = list(parked.records.values())
            left = await desk.apply_one(conversation_id, records)
            if left is not None:
                kept = {_origin(record) for record in left.records}
                self._remove(parked, [record for record in records if _origin(record) not in kept])
                parked.waited += parked.pause
                if parked.waited < self._seconds and not self._is_crowded():
                    return False
                records = list(left.records)
                await desk.give_up(records, left.reason)
            self._remove(parked, records)
        return True

    def _remove(self, parked: _Parked, records: Sequence[Record]) -> None:
        for record in records:
            parked.records.pop(_origin(record), None)

    def _let_go(self, conversation_id: str, parked: _Parked) -> None:
        if self._parked.get(conversation_id) is parked:
            logger.info("conversation %s goes on", conversation_id)
            del self._parked[conversation_id]
            self._count()
            parked.settled.set_result(None)

    def _postpone(self, parked: _Parked) -> None:
        parked.pause = min(parked.pause * 2, LONGEST_PAUSE_SECONDS) * random.uniform(0.75, 1.0)  # noqa: S311 - jitter
        parked.next_try = self._clock() + parked.pause

    def _is_crowded(self) -> bool:
        return sum(len(parked.records) for parked in self._parked.values()) > PARKED_RECORDS

    def _count(self) -> None:
        self._gauge.set(len(self._parked))
        if self._parked:
            self.is_used.set()
        else:
            self.is_used.clear()


def _origin(record: Record) -> tuple[str, int, int]:
    return record.topic, record.partition, record.offset


class Attendant:
    """A part of a stream app: attends to a parking lot for as long as the app runs. `excuse` is told while somebody is
    parked, for nothing may be committed then; `on_error` is given what the lot raises."""

    def __init__(
        self, lot: ParkingLot, desk: Desk, *, excuse: Callable[[], None], on_error: Callable[[Exception], None]
    ) -> None:
        self._lot = lot
        self._desk = desk
        self._excuse = excuse
        self._on_error = on_error

    async def open(self) -> None:
        """Begins."""
        self._task = asyncio.create_task(self._attend())

    async def close(self) -> None:
        """Ends; what is parked will come again."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._lot.clear()

    async def _attend(self) -> None:
        while True:
            await self._lot.is_used.wait()
            self._excuse()
            try:
                await self._lot.attend(self._desk)
            except Exception as error:
                self._on_error(error)
            await asyncio.sleep(LOOK_SECONDS)


def when_all_settled(futures: Sequence[asyncio.Future[None]], then: Callable[[], object]) -> None:
    """Calls `then` when all futures are done; never if one of them is cancelled."""
    remaining = set(futures)

    def settle(future: asyncio.Future[None]) -> None:
        if not future.cancelled():
            remaining.discard(future)
            if not remaining:
                then()

    for future in list(remaining):
        future.add_done_callback(settle)
