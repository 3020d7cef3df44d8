"""Group commit: what concurrent requests want to write goes to PostgreSQL together, one round trip per batch.

There is no timer: while a batch is being committed the next one gathers, so batches are as large as the load makes
them. A lane (a connection) takes its share of what waits and what is under way: while PostgreSQL works for one lane,
Python works for another. What is written, and whether it may be, is decided by the SQL function that a Statement calls.
"""

from __future__ import annotations

import asyncio
import logging
import math
import select
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import psycopg
from psycopg import AsyncConnection, errors
from psycopg.rows import TupleRow

from infra.telemetry.spans import Recorder
from ingest_api.errors import DatabaseUnavailable
from ingest_api.telemetry import WriterMetrics
from ingest_api.tracing import CommitSpans
from schemas.metrics import sample_step
from schemas.problems import ProblemError

logger = logging.getLogger(__name__)

ATTEMPTS = 3
MIN_SHARE = 16
"""So few items are not worth sharing: a call costs as much as sixteen of them."""
UNKNOWN = "It is not known whether this was stored; retry with the same id."

Item = TypeVar("Item")
Answer = TypeVar("Answer")
Connect = Callable[[], Awaitable[AsyncConnection[TupleRow]]]


class WriterSaturated(ProblemError):
    """More entries wait for a commit than the server lets wait; retry in a moment."""

    code, title, status = "saturated", "Saturated", 503


class OutcomeUnknown(DatabaseUnavailable):
    """The commit's outcome is not known; retry with the same id, and it is stored once."""

    code, title = "outcome-unknown", "Outcome unknown"


def one_run(items: list[Item]) -> list[list[Item]]:
    """All of a batch in one call."""
    return [items]


@dataclass(frozen=True, slots=True)
class Statement(Generic[Item, Answer]):
    """SQL that writes a list of items, all or (when it raises) none, and answers one row per item, in their order.
    `runs` cuts a batch into what one call each may take."""

    sql: str
    arguments: Callable[[list[Item]], Sequence[Any]]
    read_row: Callable[..., Answer | ProblemError]
    runs: Callable[[list[Item]], list[list[Item]]] = one_run


@dataclass(frozen=True, slots=True)
class Limits:
    """`batch_size` and `queue_size` count items; one commit that takes longer than the timeout has an unknown
    outcome."""

    connections: int
    batch_size: int
    queue_size: int
    timeout_seconds: float


@dataclass(frozen=True, slots=True)
class _Unit(Generic[Item, Answer]):
    """What one request writes: it is committed over one connection, in order. `since` is a reading of perf_counter."""

    items: list[Item]
    answer: asyncio.Future[list[Answer | ProblemError]]
    since: float


class GroupCommit(Generic[Item, Answer]):
    """Writes items through a few connections of its own. Start it, write, close it (what waits is finished)."""

    def __init__(
        self,
        connect: Connect,
        statement: Statement[Item, Answer],
        limits: Limits,
        metrics: WriterMetrics | None = None,
    ) -> None:
        self._connect = connect
        self._spans: CommitSpans[Item] | None = None
        self._statement = statement
        self._limits = limits
        self._metrics = metrics
        self._units: deque[_Unit[Item, Answer]] = deque()
        self._waiting = 0
        self._in_flight = 0
        self._idle: deque[asyncio.Future[None]] = deque()
        self._lanes: list[asyncio.Task[None]] = []
        self._is_closing = False

    def start(self) -> None:
        """Begins to commit what is written. Connections are opened when first needed."""
        if self._metrics is not None:
            self._metrics.queue_length.set_function(lambda: self._waiting)
        self._lanes = [asyncio.create_task(self._run_lane()) for _ in range(self._limits.connections)]

    def tell(self, spans: CommitSpans[Item]) -> None:
        """From now on the traces of what is written are told to `spans`."""
        self._spans = spans

    @property
    def queue_share(self) -> float:
        """How full the queue is, between 0 and 1."""
        return self._waiting / self._limits.queue_size

    async def write(self, items: list[Item]) -> list[Answer | ProblemError]:
        """What became of each item, in their order, once they are committed: the statement's answer, or why not.
        Raises WriterSaturated; among the answers DatabaseUnavailable says that the item was not stored,
        OutcomeUnknown that it may have been. A caller that is cancelled meanwhile leaves them whole: all or none."""
        return await self._submit(items)

    async def write_one(self, item: Item) -> Answer:
        """What became of this item. Raises what `write` raises or answers."""
        result = (await self._submit([item]))[0]
        if isinstance(result, ProblemError):
            raise result
        return result

    async def close(self) -> None:
        """Commits what waits, then closes the connections. Nothing is taken any more."""
        self._is_closing = True
        for idle in self._idle:
            if not idle.done():
                idle.set_result(None)
        await asyncio.gather(*self._lanes)

    def _submit(self, items: list[Item]) -> asyncio.Future[list[Answer | ProblemError]]:
        if self._is_closing or self._waiting + len(items) > self._limits.queue_size:
            if self._metrics is not None:
                self._metrics.refused_total.inc(len(items))
            raise WriterSaturated(
                "Too much waits to be stored; nothing was stored. Try again.", headers={"Retry-After": "1"}
            )
        answer: asyncio.Future[list[Answer | ProblemError]] = asyncio.get_running_loop().create_future()
        self._units.append(_Unit(items, answer, time.perf_counter()))
        self._waiting += len(items)
        while self._idle:
            idle = self._idle.popleft()
            if not idle.done():
                idle.set_result(None)
                break
        return answer

    async def _take(self) -> list[_Unit[Item, Answer]] | None:
        """The lane's share of what waits, up to the batch size (a unit is never cut); None when closed and nothing
        waits."""
        while not self._units:
            if self._is_closing:
                return None
            idle: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._idle.append(idle)
            await idle
        taken, count = [], 0
        share = math.ceil((self._waiting + self._in_flight) / self._limits.connections)
        most = min(self._limits.batch_size, max(MIN_SHARE, share))
        while self._units and (count == 0 or count + len(self._units[0].items) <= most):
            unit = self._units.popleft()
            self._waiting -= len(unit.items)
            if not unit.answer.done():  # else: the request was cancelled before anything happened
                taken.append(unit)
                count += len(unit.items)
        return taken

    async def _run_lane(self) -> None:
        lane = _Lane(self._connect, self._statement, self._limits.timeout_seconds)
        try:
            while (units := await self._take()) is not None:
                if not units:
                    continue
                items = [item for unit in units for item in unit.items]
                self._in_flight += len(items)
                taken_ns = time.time_ns()
                if self._metrics is None:
                    results = await self._settle(lane, items, units)
                else:
                    with self._metrics.commit_seconds.time():
                        results = await self._settle(lane, items, units)
                    self._metrics.batch_size.observe(len(items))
                    _observe(units, results, self._metrics)
                _answer(units, results)
                settled_ns = time.time_ns()
                self._in_flight -= len(items)
                await asyncio.sleep(0)  # those who have just been answered may have more: it goes into the next batch
                if self._spans is not None:
                    self._spans.note(items, results, taken_ns, settled_ns)
        finally:
            await lane.disconnect()

    async def _settle(
        self, lane: _Lane[Item, Answer], items: list[Item], units: list[_Unit[Item, Answer]]
    ) -> list[Answer | ProblemError]:
        """A result for every item, whatever happens; only the lane's end is raised, after everyone has an answer."""
        unknown = OutcomeUnknown(UNKNOWN)
        try:
            return [result for run in self._statement.runs(items) for result in await lane.write(run)]
        except Exception:
            logger.exception("A batch of %d failed unexpectedly", len(items))
            await lane.disconnect()
        except BaseException:
            nothing: list[Answer | ProblemError] = [unknown] * len(items)
            _answer(units, nothing)
            raise
        return [unknown] * len(items)


def trace_writes(recorder: Recorder | None, *writers: GroupCommit[Any, Any]) -> None:
    """Has the traces of what these write recorded, if there is a recorder."""
    if recorder is not None:
        for writer in writers:
            writer.tell(CommitSpans(recorder))


class _Lane(Generic[Item, Answer]):
    """One connection and the batches that go over it."""

    def __init__(self, connect: Connect, statement: Statement[Item, Answer], timeout_seconds: float) -> None:
        self._connect = connect
        self._statement = statement
        self._timeout_seconds = timeout_seconds
        self._connection: AsyncConnection[TupleRow] | None = None
        self._warnings: list[str] = []

    async def write(self, items: list[Item]) -> list[Answer | ProblemError]:
        """What became of each item. One that PostgreSQL refuses does not take its neighbours with it: a batch that is
        refused is retried by halves, in order."""
        try:
            rows = await self._call(items)
        except ProblemError as error:
            return [error] * len(items)
        except psycopg.Error as error:
            if len(items) == 1:
                logger.error("An item could not be stored: %s", error)
                return [DatabaseUnavailable("This was not stored; try again.")]
            logger.warning("A batch of %d was refused and is retried by halves: %s", len(items), error)
            half = len(items) // 2
            return [*await self.write(items[:half]), *await self.write(items[half:])]
        if len(rows) != len(items):
            raise AssertionError(f"{len(items)} items were answered by {len(rows)} rows")
        read_row = self._statement.read_row
        return [read_row(*row) for row in rows]

    async def disconnect(self) -> None:
        """Closes the connection; the next call opens another one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _call(self, items: list[Item]) -> list[Any]:
        """One call; repeated when PostgreSQL rolled it back for a reason that passes. Raises DatabaseUnavailable,
        OutcomeUnknown, and psycopg.Error for what was rolled back for good."""
        arguments = self._statement.arguments(items)
        for attempt in range(ATTEMPTS):
            connection = await self._connected()
            self._warnings.clear()
            try:
                async with asyncio.timeout(self._timeout_seconds):
                    cursor = await connection.execute(self._statement.sql, arguments, prepare=True)
                    rows = await cursor.fetchall()
            except (errors.UniqueViolation, errors.DeadlockDetected, errors.SerializationFailure):
                # Another transaction won; it has committed by now, so the next attempt sees what it wrote.
                if attempt == ATTEMPTS - 1:
                    raise
                continue
            except (psycopg.OperationalError, psycopg.InterfaceError, TimeoutError) as error:
                await self.disconnect()
                raise OutcomeUnknown(UNKNOWN) from error
            if self._warnings:
                # A wait for synchronous replication that was cancelled ends in success and a warning.
                raise OutcomeUnknown(f"The database committed with a warning: {self._warnings[0]}")
            return rows
        raise AssertionError("unreachable")

    async def _connected(self) -> AsyncConnection[TupleRow]:
        if self._connection is not None and _has_ended(self._connection):
            await self.disconnect()
        if self._connection is None:
            try:
                self._connection = await self._connect()
            except (psycopg.Error, OSError) as error:
                raise DatabaseUnavailable("The database cannot be reached; nothing was stored. Retry.") from error
            self._connection.add_notice_handler(self._note)
        return self._connection

    def _note(self, diagnostic: errors.Diagnostic) -> None:
        if diagnostic.severity_nonlocalized == "WARNING":
            self._warnings.append(diagnostic.message_primary or "")


def _has_ended(connection: AsyncConnection[TupleRow]) -> bool:
    """Whether the server has closed this connection, which nobody is using. Found out before anything is sent, it costs
    a reconnection; afterwards the outcome would be unknown. Takes no round trip: an idle connection has nothing to
    read, unless the server tells of a changed setting or says goodbye."""
    readable = select.poll()
    readable.register(connection.fileno(), select.POLLIN)
    try:
        while readable.poll(0):
            connection.pgconn.consume_input()
            if connection.closed:
                return True
            connection.pgconn.notifies()
    except psycopg.OperationalError:
        return True
    return False


def _observe(units: list[_Unit[Item, Answer]], results: list[Answer | ProblemError], metrics: WriterMetrics) -> None:
    """Measures how long those waited that PostgreSQL has decided on (of many, some)."""
    now = time.perf_counter()
    step = sample_step(len(units))
    if not isinstance(results[0], DatabaseUnavailable):
        metrics.commit_hop.add([now - unit.since for unit in units[::step]], weight=step)


def _answer(units: list[_Unit[Item, Answer]], results: list[Answer | ProblemError]) -> None:
    start = 0
    for unit in units:
        end = start + len(unit.items)
        if not unit.answer.done():  # else: the request was cancelled; what it wrote stands, and a retry is a replay
            unit.answer.set_result(results[start:end])
        start = end
