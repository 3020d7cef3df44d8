"""The log writer: commits the entries of concurrent requests together, one round trip per batch.

There is no timer: while a batch is being committed the next one gathers, so batches are as large as the load makes
them. What an entry is and who may write it is decided in SQL (migrations/sql/append_entries.sql).
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import psycopg
from psycopg import AsyncConnection, errors
from psycopg.rows import TupleRow

from ingest_api.errors import ConversationNotFound, DatabaseUnavailable
from ingest_api.telemetry import WriterMetrics
from schemas.problems import ProblemError

logger = logging.getLogger(__name__)

APPEND = """
    SELECT outcome, seq, payload_time(created_at)
    FROM append_entries(%s::uuid[], %s::uuid[], %s::uuid[], %s::text[], %s::uuid[], %s::text[], %s::text[])
"""
ATTEMPTS = 3


class EventIdTaken(ProblemError):
    """The id was used before, for something else; choose another one."""

    code, title, status = "id-taken", "Id taken", 409


class UnknownReply(ProblemError):
    """`reply_to` names no message of this conversation."""

    code, title, status = "unknown-reply", "Unknown message replied to", 422


class WriterSaturated(ProblemError):
    """More entries wait for a commit than the server lets wait; retry in a moment."""

    code, title, status = "saturated", "Saturated", 503


class OutcomeUnknown(DatabaseUnavailable):
    """The commit's outcome is not known; retry with the same id, and it is stored once."""

    code, title = "outcome-unknown", "Outcome unknown"


class NewEntry(NamedTuple):
    """An entry to be appended. `tail` is its payload as JSON text without the opening brace and without `seq` and
    `created_at`; `type` and `traceparent` hold nothing that an array literal would have to quote."""

    event_id: str
    conversation_id: str
    actor_id: str
    type: str
    reply_to: str | None
    tail: str
    traceparent: str


def new_entry(
    *,
    event_id: str,
    type: str,
    conversation_id: str,
    actor_id: str,
    traceparent: str,
    reply_to: str | None = None,
    **fields: Any,
) -> NewEntry:
    """An entry from its event's fields; those that every event has, and those of its type."""
    event = {
        "event_id": event_id,
        "type": type,
        "conversation_id": conversation_id,
        "actor_id": actor_id,
        **fields,
    }
    if reply_to is not None:
        event["reply_to"] = reply_to
    tail = json.dumps(event, ensure_ascii=False, separators=(",", ":"))[1:]
    return NewEntry(event_id, conversation_id, actor_id, type, reply_to, tail, traceparent)


@dataclass(frozen=True, slots=True)
class Appended:
    """Where an entry stands. `created_at` is RFC 3339 text. A replay was stored by an earlier request."""

    seq: int
    created_at: str
    is_replay: bool


class _Waiting(NamedTuple):
    entry: NewEntry
    answer: asyncio.Future[Appended]


def append_arguments(entries: list[NewEntry]) -> tuple[str | list[str], ...]:
    """The arguments of `append_entries`: seven arrays. Ids need no quoting, so they go as array literals."""
    return (
        _array([entry.event_id for entry in entries]),
        _array([entry.conversation_id for entry in entries]),
        _array([entry.actor_id for entry in entries]),
        _array([entry.type for entry in entries]),
        _array([entry.reply_to or "NULL" for entry in entries]),
        [entry.tail for entry in entries],
        _array([entry.traceparent for entry in entries]),
    )


def _array(items: list[str]) -> str:
    return "{" + ",".join(items) + "}"


def read_outcome(outcome: str, seq: int | None, created_at: str | None) -> Appended | ProblemError:
    """What one row of `append_entries` says."""
    match outcome:
        case "appended" | "replayed" if seq is not None and created_at is not None:
            return Appended(seq=seq, created_at=created_at, is_replay=outcome == "replayed")
        case "not_found":
            return ConversationNotFound()
        case "conflict":
            return EventIdTaken("This id is taken by other content; choose another one.")
        case "unknown_reply":
            return UnknownReply("reply_to names no message of this conversation.")
    raise AssertionError(f"append_entries answered {outcome!r}")


class LogWriter:
    """Appends entries through a few connections of its own. Start it, append, close it (what waits is finished)."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[AsyncConnection[TupleRow]]],
        *,
        connections: int,
        batch_size: int,
        queue_size: int,
        timeout_seconds: float,
        metrics: WriterMetrics,
    ) -> None:
        self._connect = connect
        self._connections = connections
        self._batch_size = batch_size
        self._timeout_seconds = timeout_seconds
        self._metrics = metrics
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue(maxsize=queue_size)
        self._lanes: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begins to commit what is appended. Connections are opened when first needed."""
        self._metrics.queue_length.set_function(self._queue.qsize)
        self._lanes = [
            asyncio.create_task(_Lane(self._connect, self._timeout_seconds).run(self._take_batch, self._metrics))
            for _ in range(self._connections)
        ]

    @property
    def queue_share(self) -> float:
        """How full the queue is: 0 to 1."""
        return self._queue.qsize() / self._queue.maxsize

    async def append(self, entry: NewEntry) -> Appended:
        """Where the entry stands now that it is committed. Raises ConversationNotFound, EventIdTaken, UnknownReply;
        WriterSaturated and DatabaseUnavailable when it was not stored; OutcomeUnknown when it may have been."""
        answer: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
        try:
            self._queue.put_nowait(_Waiting(entry, answer))
        except asyncio.QueueFull:
            self._metrics.refused_total.inc()
            raise WriterSaturated(
                "Too many messages wait to be stored; nothing was stored. Try again.",
                headers={"Retry-After": "1"},
            ) from None
        return await answer

    async def close(self) -> None:
        """Commits what waits, then closes the connections."""
        await self._queue.join()
        for lane in self._lanes:
            lane.cancel()
        await asyncio.gather(*self._lanes, return_exceptions=True)

    async def _take_batch(self) -> tuple[list[_Waiting], Callable[[], None]]:
        """Everything that waits, up to the batch size; and what to call when it has been answered."""
        taken = [await self._queue.get()]
        while len(taken) < self._batch_size and not self._queue.empty():
            taken.append(self._queue.get_nowait())
        count = len(taken)

        def done() -> None:
            for _ in range(count):
                self._queue.task_done()

        return [waiting for waiting in taken if not waiting.answer.done()], done


class _Lane:
    """One connection and the batches that go over it."""

    def __init__(self, connect: Callable[[], Awaitable[AsyncConnection[TupleRow]]], timeout_seconds: float) -> None:
        self._connect = connect
        self._timeout_seconds = timeout_seconds
        self._connection: AsyncConnection[TupleRow] | None = None
        self._warnings: list[str] = []

    async def run(
        self,
        take_batch: Callable[[], Awaitable[tuple[list[_Waiting], Callable[[], None]]]],
        metrics: WriterMetrics,
    ) -> None:
        try:
            while True:
                batch, done = await take_batch()
                try:
                    if batch:
                        with metrics.commit_seconds.time():
                            await self._commit(batch)
                        metrics.batch_size.observe(len(batch))
                finally:
                    done()
        finally:
            await self._disconnect()

    async def _commit(self, batch: list[_Waiting]) -> None:
        """Answers every entry of the batch, whatever happens."""
        try:
            rows = await self._call([waiting.entry for waiting in batch])
        except ProblemError as error:
            for waiting in batch:
                _answer(waiting, error)
        except psycopg.Error as error:
            if len(batch) == 1:
                logger.error("An entry could not be appended: %s", error)
                _answer(batch[0], DatabaseUnavailable("The message was not stored; try again."))
                return
            # One entry that PostgreSQL refuses must not take its neighbours with it.
            logger.warning("A batch of %d was refused and is retried one by one: %s", len(batch), error)
            for waiting in batch:
                await self._commit([waiting])
        except BaseException:
            for waiting in batch:
                _answer(waiting, OutcomeUnknown("It is not known whether the message was stored; retry."))
            raise
        else:
            for waiting, row in zip(batch, rows, strict=True):
                _answer(waiting, read_outcome(*row))

    async def _call(self, entries: list[NewEntry]) -> list[Any]:
        """One call of append_entries; repeated when PostgreSQL rolled it back for a reason that passes. Raises
        DatabaseUnavailable, OutcomeUnknown, and psycopg.Error for what was rolled back for good."""
        arguments = append_arguments(entries)
        for attempt in range(ATTEMPTS):
            connection = await self._connected()
            self._warnings.clear()
            try:
                async with asyncio.timeout(self._timeout_seconds):
                    cursor = await connection.execute(APPEND, arguments, prepare=True)
                    rows = await cursor.fetchall()
            except (errors.UniqueViolation, errors.DeadlockDetected, errors.SerializationFailure):
                # Another transaction won; it has committed by now, so the next attempt sees what it wrote.
                if attempt == ATTEMPTS - 1:
                    raise
                continue
            except (psycopg.OperationalError, psycopg.InterfaceError, TimeoutError) as error:
                await self._disconnect()
                raise OutcomeUnknown(
                    "It is not known whether the message was stored; retry with the same message_id."
                ) from error
            if self._warnings:
                # A wait for synchronous replication that was cancelled ends in success and a warning.
                raise OutcomeUnknown(f"The database committed with a warning: {self._warnings[0]}")
            return rows
        raise AssertionError("unreachable")

    async def _connected(self) -> AsyncConnection[TupleRow]:
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

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


def _answer(waiting: _Waiting, result: Appended | ProblemError) -> None:
    if waiting.answer.done():  # the request was cancelled; the entry is stored, and a retry is a replay
        return
    if isinstance(result, ProblemError):
        waiting.answer.set_exception(result)
    else:
        waiting.answer.set_result(result)
