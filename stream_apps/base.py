"""What every Faust app shares: its settings, and the agent that never loses a record.

Faust acknowledges what an agent leaves, by an exception too. So the agent here never raises: what passes (something is
away) is retried in place, and whatever else happens ends the process with nothing acknowledged; its supervisor starts
it again, and Kafka brings the records again.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NoReturn, Protocol

import faust
from aiokafka.errors import KafkaError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from schemas.topics import Topic
from stream_apps.chunk_transport import PROMPT, ChunkTransport, Fetching
from stream_apps.log_reader import LogUnavailable
from stream_apps.parking import when_all_settled
from stream_apps.records import Record
from stream_apps.redis_tables.replies import is_passing_reply
from stream_apps.settings import StreamSettings
from stream_apps.telemetry import StreamMetrics
from stream_apps.tracing import RecordSpans, traces_of

logger = logging.getLogger(__name__)

PASSING = (RedisConnectionError, RedisTimeoutError, LogUnavailable, KafkaError)
"""What is raised when something is away: retried for as long as it takes."""

FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 2.0
WATCH_SECONDS = 1.0

# What a process holds in memory is bounded by these: the chunks in the buffer, one batch, and what one fetch brings.
CHUNK_RECORDS = 1000
CHUNK_BYTES = 256 * 1024
BUFFERED_CHUNKS = 32
BATCH_RECORDS = 1000
"""A batch takes no further chunk when it has this many records. Redis does nothing else meanwhile: some 10 ms."""

STUCK_REBALANCE_SECONDS = 150.0
"""A rebalance ends within Faust's rebalance timeout, 60 s."""

EXIT_STATUS = 70
"""The process' exit status when there is no way on (EX_SOFTWARE of sysexits.h)."""

Unsettled = Sequence[asyncio.Future[None]] | None
"""What a batch leaves for later, conversation by conversation: it is acknowledged when all of these are done, and comes
again if one is cancelled."""

Handler = Callable[[Sequence[Record]], Awaitable[Unsettled]]
"""Returns when the records are applied, but for what it parked. Raises what says that something is away; anything else
ends the process."""


class Watchdog:
    """Notices an app that stalls without dying: records wait, and nothing is committed."""

    def __init__(self, seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._since = clock()
        self._committed = -1

    @property
    def patience(self) -> float:
        """How many seconds without progress are borne with."""
        return self._seconds

    @property
    def seconds_without_progress(self) -> float:
        """How long records have waited by now without one being committed."""
        return self._clock() - self._since

    def excuse(self) -> None:
        """There is a known reason for no progress: waiting for something that is away is no stall."""
        self._since = self._clock()

    def is_stalled(self, *, lag: int, committed: int) -> bool:
        """Whether it has lasted too long. `committed` is the sum of the committed offsets: any change of it is
        progress (a rebalance changes it too), and so is no lag."""
        if lag <= 0 or committed != self._committed:
            self._since = self._clock()
            self._committed = committed
        return self._clock() - self._since > self._seconds


class Part(Protocol):
    """What an app opens when it starts and closes when it has stopped."""

    async def open(self) -> None: ...
    async def close(self) -> None: ...


class StreamApp(faust.App):
    """A Faust app as every stream app needs it: one consumer group, chunks, no Faust tables, no web server."""

    def __init__(
        self,
        name: str,
        settings: StreamSettings,
        *,
        parts: Sequence[Part],
        metrics: StreamMetrics,
        watchdog: Watchdog,
        fetching: Fetching = PROMPT,
    ) -> None:
        super().__init__(
            f"chat4all-{name}",
            broker=[f"kafka://{address}" for address in settings.kafka_bootstrap.split(",")],
            store="memory://",
            autodiscover=False,
            web_enabled=False,
            topic_allow_declare=False,
            topic_disable_leader=True,
            consumer_auto_offset_reset="earliest",
            broker_session_timeout=6.0,
            broker_heartbeat_interval=1.5,
            broker_commit_interval=1.0,
            broker_max_poll_records=CHUNK_RECORDS,
            consumer_max_fetch_size=CHUNK_BYTES,
            stream_buffer_maxsize=BUFFERED_CHUNKS,
            stream_wait_empty=True,
            consumer_group_instance_id=settings.group_instance_id or None,
        )
        self.transport = ChunkTransport(self.conf.broker_consumer, self, fetching=fetching)
        self._parts = list(parts)
        self.spans = RecordSpans(name, None)
        self._metrics = metrics
        self._watchdog = watchdog
        self.task(self._watch)

    def tell(self, spans: RecordSpans) -> None:
        """The traces of what is applied are told to `spans`, which is one more part. Before the app starts."""
        self.spans = spans
        self._parts.append(spans)

    async def on_start(self) -> None:
        """Opens the parts before the first record comes."""
        for part in self._parts:
            await part.open()
        await super().on_start()
        # What is there now stays: the collector need not look at it again (that would take 100 ms at a time).
        gc.collect()
        gc.freeze()

    async def on_stop(self) -> None:
        """Closes the parts after the last record has been acknowledged."""
        await super().on_stop()
        for part in reversed(self._parts):
            await part.close()

    def lag_and_committed(self) -> tuple[int, int]:
        """Records that Kafka has shown for this process's partitions and that it has not committed, and the sum of the
        offsets that it has."""
        consumer = self.consumer
        lag = committed = 0
        for partition in consumer.assignment():
            offset = consumer._committed_offset[partition] or 0
            lag += max(0, (consumer.highwater(partition) or 0) - offset)
            committed += offset
        return lag, committed

    async def _watch(self) -> None:
        settled_at = looked_at = time.monotonic()
        while not self.should_stop:
            await self.sleep(WATCH_SECONDS)
            now = time.monotonic()
            if now - looked_at > 5 * WATCH_SECONDS:  # the process was paused, and can only now go on
                self._watchdog.excuse()
                settled_at = now
            looked_at = now
            if self.should_stop:
                continue
            if failure := self.consumer.find_failure():
                logger.critical("Kafka's consumer has failed; the process ends", exc_info=failure)
                end_process()
            if self.rebalancing:
                if now - settled_at > STUCK_REBALANCE_SECONDS:
                    logger.critical("a rebalance has lasted for %d s; the process ends", now - settled_at)
                    end_process()
                continue
            settled_at = now
            lag, committed = self.lag_and_committed()
            self._metrics.lag_records.set(lag)
            if self._watchdog.is_stalled(lag=lag, committed=committed):
                logger.critical("%d records wait, and nothing has been committed for too long; the process ends", lag)
                end_process()


def add_agent(app: StreamApp, topic: Topic, handler: Handler, metrics: StreamMetrics, watchdog: Watchdog) -> None:
    """Gives the app its one agent for a topic: it takes all chunks that wait, of all partitions, hands their records to
    the handler, and acknowledges them in order."""
    source = app.topic(topic.name, key_serializer="raw", value_serializer="raw", internal=False)

    async def consume(stream: Any) -> None:
        try:
            await _consume(app, stream, handler, metrics, watchdog)
        except Exception:
            logger.critical("the agent of %s has failed; the process ends", topic.name, exc_info=True)
            end_process()

    app.agent(source, name=f"{app.conf.id}-{topic.name}-agent", concurrency=1)(consume)


async def _consume(app: StreamApp, stream: Any, handler: Handler, metrics: StreamMetrics, watchdog: Watchdog) -> None:
    queue = stream.channel.queue
    async for event in stream.noack().events():
        events = [event]
        count = len(event.value.records)
        while count < BATCH_RECORDS and not queue.empty():
            waiting = queue.get_nowait()
            # Faust checks this for what comes through the stream. What was fetched before a rebalance comes again.
            if waiting.message.generation_id == app.consumer_generation_id:
                events.append(waiting)
                count += len(waiting.value.records)
        records = [record for taken in events for record in taken.value.records]
        try:
            unsettled = await _apply(app, handler, records, metrics, watchdog)
        except GivenBack:
            for taken in events:
                app.consumer.abandon(taken.message)
        else:
            _acknowledge(app, events, unsettled)


def _acknowledge(app: StreamApp, events: Sequence[Any], unsettled: Unsettled) -> None:
    """Acknowledges the events, as soon as nothing of theirs is unsettled."""
    if not unsettled:
        for event in events:
            event.ack()
        return
    chunks = [event.value for event in events]
    for event in events:
        app.consumer.abandon(event.message)
        event.value.hold()
    when_all_settled(unsettled, lambda: [chunk.acknowledge() for chunk in chunks])


class GivenBack(Exception):
    """Something is away, and the partitions are about to go to someone else, or the app stops."""


async def _apply(
    app: StreamApp, handler: Handler, records: Sequence[Record], metrics: StreamMetrics, watchdog: Watchdog
) -> Unsettled:
    """Has the records applied, however long it takes. Raises GivenBack."""
    started, started_ns = time.perf_counter(), time.time_ns()
    metrics.records_total.inc(len(records))
    metrics.batch_records.observe(len(records))
    pause = FIRST_PAUSE_SECONDS
    while True:
        try:
            unsettled = await handler(records)
        except Exception as error:
            if not is_passing(error):
                logger.critical(
                    "these %d records cannot be applied; the process ends%s",
                    len(records),
                    traces_of(records),
                    exc_info=True,
                )
                end_process()
            if not app.flow_control.is_active():
                logger.warning("giving %d records back: %s%s", len(records), describe(error), traces_of(records))
                raise GivenBack from error
            metrics.retries_total.inc()
            logger.warning("retrying %d records: %s%s", len(records), describe(error), traces_of(records))
            watchdog.excuse()
            await _pause(app, pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
        else:
            break
    metrics.apply_seconds.observe(time.perf_counter() - started)
    metrics.last_progress.set_to_current_time()
    app.spans.note(records, started_ns)
    return unsettled


def describe(error: Exception) -> str:
    """For a log line."""
    return f"{type(error).__name__}: {error}"


def is_passing(error: Exception) -> bool:
    """Whether the error says that something is away, or cannot take writes just now."""
    return isinstance(error, PASSING) or is_passing_reply(error)


async def _pause(app: StreamApp, seconds: float) -> None:
    """Ends early when Faust stops the flow: it then waits for what is being applied."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(app.consumer.suspend_flow.wait(), seconds)


def end_because_of(error: Exception) -> NoReturn:
    """Ends the process as end_process does, and the log says why."""
    logger.critical("%s; the process ends", error, exc_info=error)
    end_process()


def end_process() -> NoReturn:
    """Ends the process at once, with nothing acknowledged: whatever Faust would still do might lose records."""
    logging.shutdown()
    os._exit(EXIT_STATUS)
