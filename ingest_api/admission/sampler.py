"""Measures what the ladder decides from: the replication slot once per interval, on a connection of its own, and the
writer's queue ten times as often. It reads PostgreSQL's statistics, never the outbox."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from ingest_api.admission.ladder import Ladder
from ingest_api.admission.model import LagClock, SlotSample
from schemas.outboxes import HOLD_CLASS, HOLD_OBJECT

logger = logging.getLogger(__name__)

TICKS = 10
READ_SLOT = """
    WITH slot AS (
        SELECT expected.name, slots.*
        FROM (
            SELECT %(slot)s::text AS name
            UNION
            SELECT pubname::text FROM pg_publication JOIN pg_publication_rel ON prpubid = pg_publication.oid
            WHERE prrelid = to_regclass('public.outbox') AND pubname ~ ('^' || %(slot)s::text || '_[0-9]+$')
        ) AS expected LEFT JOIN pg_replication_slots AS slots ON slots.slot_name = expected.name
    ), hold AS (
        SELECT FROM pg_locks
        WHERE locktype = 'advisory' AND classid = %(hold_class)s AND objid = %(hold_object)s AND objsubid = 2
          AND granted
          AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    )
    SELECT CASE
               WHEN count(*) > count(slot_name) THEN NULL
               WHEN EXISTS (SELECT FROM hold) THEN 'held'
               ELSE (array_agg(wal_status ORDER BY array_position('{lost,unreserved,extended}', wal_status)))[1]
           END,
           max(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn))::bigint,
           min(safe_wal_size),
           (SELECT setting::bigint * 1024 * 1024 FROM pg_settings WHERE name = 'max_slot_wal_keep_size'),
           pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint,
           min(pg_wal_lsn_diff(confirmed_flush_lsn, '0/0'))::bigint
    FROM slot
"""
"""The worst of all outboxes: there is one publication of the outbox per slot, and each must have its slot."""


class SlotReader:
    """Reads the slots of all outboxes, of which `slot` names the first. `budget_bytes` is the room for held WAL where
    PostgreSQL is told to keep it without limit."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[AsyncConnection[TupleRow]]],
        *,
        slot: str,
        budget_bytes: int,
        timeout_seconds: float = 5.0,
    ) -> None:
        self._connect = connect
        self._arguments = {"slot": slot, "hold_class": HOLD_CLASS, "hold_object": HOLD_OBJECT}
        self._budget_bytes = budget_bytes
        self._timeout_seconds = timeout_seconds
        self._connection: AsyncConnection[TupleRow] | None = None
        self._clock = LagClock()

    async def read(self) -> SlotSample:
        """The slots now, as one. Raises psycopg.Error, OSError, TimeoutError."""
        try:
            async with asyncio.timeout(self._timeout_seconds):
                if self._connection is None:
                    self._connection = await self._connect()
                cursor = await self._connection.execute(READ_SLOT, self._arguments)
                row = await cursor.fetchone()
        except BaseException:
            await self.close()
            raise
        if row is None:
            raise psycopg.DataError("the query for the slot gave no row")
        status, held, safe, keep, current, confirmed = row
        lag = 0.0 if confirmed is None else self._clock.lag_seconds(time.monotonic(), current, confirmed)
        is_limited = keep >= 0
        return SlotSample(
            status=status,
            held_bytes=max(held or 0, 0),
            safe_bytes=safe if is_limited else None,
            limit_bytes=max(keep, 1) if is_limited else self._budget_bytes,
            lag_seconds=lag,
        )

    async def close(self) -> None:
        """Closes the connection; the next reading opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


class Sampler:
    """Feeds the ladder until it is cancelled. When the slot cannot be read, what was last seen of it holds on."""

    def __init__(
        self,
        ladder: Ladder,
        read_slot: Callable[[], Awaitable[SlotSample]],
        queue_share: Callable[[], float],
        *,
        interval_seconds: float,
    ) -> None:
        self._ladder = ladder
        self._read_slot = read_slot
        self._queue_share = queue_share
        self._interval_seconds = interval_seconds
        # A queue that is full for a moment and empty in the next is at work; one that never gets short is not.
        self._queue: deque[float] = deque(maxlen=TICKS)
        self._reading: asyncio.Task[None] | None = None
        self._is_failing = False

    async def run(self) -> None:
        """Reads the slot and the queue, each at its interval."""
        tick = 0
        try:
            while True:
                self._queue.append(self._queue_share())
                if tick % TICKS == 0 and (self._reading is None or self._reading.done()):
                    self._reading = asyncio.create_task(self.read())
                if len(self._queue) == TICKS:
                    self._ladder.see_queue(min(self._queue))
                tick += 1
                await asyncio.sleep(self._interval_seconds / TICKS)
        finally:
            if self._reading is not None:
                self._reading.cancel()
                await asyncio.gather(self._reading, return_exceptions=True)

    async def read(self) -> None:
        """Reads the slot once."""
        try:
            sample = await self._read_slot()
        except (psycopg.Error, OSError) as error:  # TimeoutError is an OSError
            self._ladder.metrics.failed_samples_total.inc()
            if not self._is_failing:
                logger.warning("The replication slot cannot be read; admission stays as it is: %s", error)
            self._is_failing = True
        else:
            self._is_failing = False
            self._ladder.see_slot(sample)
