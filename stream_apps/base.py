"""What every Faust app shares: its settings, and the agent that never loses a record.

Faust acknowledges what an agent leaves, by an exception too. So the agent here never raises: what passes (something is
away) is retried in place, and whatever else happens ends the process with nothing acknowledged; its supervisor starts
it again, and Kafka brings the records again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NoReturn, Protocol

import faust
from aiokafka.errors import KafkaError
from redis.exceptions import BusyLoadingError, ReadOnlyError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from schemas.topics import Topic
from stream_apps.chunk_transport import ChunkTransport
from stream_apps.log_reader import LogUnavailable
from stream_apps.records import Record
from stream_apps.settings import StreamSettings
from stream_apps.telemetry import StreamMetrics

logger = logging.getLogger(__name__)

PASSING = (RedisConnectionError, RedisTimeoutError, BusyLoadingError, ReadOnlyError, LogUnavailable, KafkaError)
"""What is raised when something is away: retried for as long as it takes."""

FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 2.0
BATCH_RECORDS = 4000
"""About how many records one call of the handler takes at most."""

EXIT_STATUS = 70
"""The process' exit status when there is no way on (EX_SOFTWARE of sysexits.h)."""

Handler = Callable[[Sequence[Record]], Awaitable[None]]


class Watchdog:
    """Notices an agent that stalls without dying. It is fed with every applied batch, and with every retry, since
    waiting for something that is away is no stall."""

    def __init__(self, seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._fed = clock()

    def feed(self) -> None:
        """There was progress, or a known reason for none."""
        self._fed = self._clock()

    def is_stalled(self, lag: int) -> bool:
        """Whether records have waited for too long. No lag is progress too."""
        if lag <= 0:
            self.feed()
        return self._clock() - self._fed > self._seconds


class Part(Protocol):
    """What an app opens when it starts and closes when it has stopped."""

    async def open(self) -> None: ...
    async def close(self) -> None: ...


class StreamApp(faust.App):
    """A Faust app as every stream app needs it: one consumer group, chunks, no Faust tables, no web server."""

    def __init__(self, name: str, settings: StreamSettings, *, parts: Sequence[Part], watchdog: Watchdog) -> None:
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
            broker_max_poll_records=BATCH_RECORDS,
            stream_buffer_maxsize=32768,
            stream_wait_empty=True,
        )
        self.transport = ChunkTransport(self.conf.broker_consumer, self)
        self._parts = parts
        self._watchdog = watchdog
        self.task(self._watch)

    async def on_start(self) -> None:
        """Opens the parts before the first record comes."""
        for part in self._parts:
            await part.open()
        await super().on_start()

    async def on_stop(self) -> None:
        """Closes the parts after the last record has been acknowledged."""
        await super().on_stop()
        for part in reversed(self._parts):
            await part.close()

    def lag(self) -> int:
        """Records that Kafka has shown for this process's partitions and that it has not committed."""
        consumer = self.consumer
        return sum(
            max(0, (consumer.highwater(partition) or 0) - (consumer._committed_offset[partition] or 0))
            for partition in consumer.assignment()
            if consumer._committed_offset[partition] is not None
        )

    async def _watch(self) -> None:
        while not self.should_stop:
            await self.sleep(1.0)
            if not self.rebalancing and self._watchdog.is_stalled(self.lag()):
                logger.critical(
                    "%d records wait and nothing has been applied for too long; the process ends", self.lag()
                )
                end_process()


def add_agent(app: StreamApp, topic: Topic, handler: Handler, metrics: StreamMetrics, watchdog: Watchdog) -> None:
    """Gives the app its one agent: it takes all chunks that wait, of all partitions, hands their records to the
    handler, and acknowledges them in order."""
    source = app.topic(topic.name, key_serializer="raw", value_serializer="raw", internal=False)

    async def consume(stream: Any) -> None:
        queue = stream.channel.queue
        async for event in stream.noack().events():
            events = [event]
            count = len(event.value)
            while count < BATCH_RECORDS and not queue.empty():
                events.append(queue.get_nowait())
                count += len(events[-1].value)
            await _apply(handler, [record for taken in events for record in taken.value], metrics, watchdog)
            for taken in events:
                taken.ack()

    app.agent(source, name=f"{app.conf.id}-agent", concurrency=1)(consume)


async def _apply(handler: Handler, records: Sequence[Record], metrics: StreamMetrics, watchdog: Watchdog) -> None:
    started = time.perf_counter()
    metrics.records_total.inc(len(records))
    metrics.batch_records.observe(len(records))
    pause = FIRST_PAUSE_SECONDS
    while True:
        try:
            await handler(records)
        except PASSING as error:
            metrics.retries_total.inc()
            logger.warning("retrying %d records: %s: %s", len(records), type(error).__name__, error)
            watchdog.feed()
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
        except Exception:
            logger.critical("these %d records cannot be applied; the process ends", len(records), exc_info=True)
            end_process()
        else:
            break
    watchdog.feed()
    metrics.apply_seconds.observe(time.perf_counter() - started)
    metrics.last_progress.set_to_current_time()


def end_process() -> NoReturn:
    """Ends the process at once, with nothing acknowledged: whatever Faust would still do might lose records."""
    logging.shutdown()
    os._exit(EXIT_STATUS)
