"""Faust's Kafka consumer, but it hands over one message per partition and fetch: a chunk of raw records.

Faust's own path costs a coroutine, a queue put and an acknowledgement per record, and tops out near 5,000 records/s.
This file is the only one that knows Faust's inside. It stands on these seams of faust-streaming 0.15.3, which is
pinned exactly, and tests/unit/stream_apps/test_chunk_transport.py watches them:
- `Transport.Consumer` names the consumer's class, `Consumer._new_consumer_thread` its thread's;
- `Consumer.getmany` yields (partition, message) to `_drain_messages`, which tracks the read offset by `message.offset`;
- `Consumer.ack` is told of every acknowledged message; `_filter_tps_with_pending_acks` and `_new_offset` say what to
  commit, and `_add_gap` notes offsets that were never seen;
- `Consumer.perform_seek`, `seek` and `seek_wait` are all the ways in which a position is set anew; a rebalance ends
  with `perform_seek`, to the committed offsets, before the flow is resumed;
- `AIOKafkaConsumerThread._create_worker_consumer` makes the aiokafka consumer, which reads `_fetch_max_wait_ms`,
  `_fetch_min_bytes` and `_fetch_max_bytes` when `on_start` starts it; `getmany` there is what crosses into the
  consumer's thread;
- aiokafka's `Fetcher._get_actions_per_node` makes the fetch requests; `_records` holds what was not taken yet;
- `Fetcher._fetch_task`, `GroupCoordinator._coordination_task` and `_pending_exception` tell of a fetcher or a group
  membership that has ended. Faust fetches past aiokafka's own check of them, and would wait for ever.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport
from faust.types.tuples import ConsumerMessage
from mode.utils.futures import notify

from stream_apps.records import Record


@dataclass(frozen=True, slots=True)
class Fetching:
    """How an app fetches. The broker holds a fetch until it finds `min_bytes`, at most so long (milliseconds; Faust
    fixes 1,500). One fetch is in flight per broker, so a partition that is left out of it, because what it brought
    before has not been taken yet, waits for its end: such a fetch is brief. One that asks for all partitions may be
    long; idle, only these are sent."""

    min_bytes: int
    brief_wait_ms: int
    long_wait_ms: int


PROMPT = Fetching(min_bytes=1, brief_wait_ms=10, long_wait_ms=500)
"""Every record at once."""

UNHURRIED = Fetching(min_bytes=64 * 1024, brief_wait_ms=100, long_wait_ms=100)
"""What comes within a tenth of a second together: a fetch and a batch cost as much as ten of their records."""

FETCH_MAX_BYTES = 4 * 1024 * 1024
"""Of all partitions together, per fetch."""


class Chunk:
    """Records of one partition, in order. `next_offset` is to be committed when all before it are acknowledged too."""

    __slots__ = ("is_acknowledged", "next_offset", "records")

    def __init__(self, records: list[Record]) -> None:
        self.records = records
        self.next_offset = records[-1].offset + 1
        self.is_acknowledged = False

    def acknowledge(self) -> None:
        """Its records have been applied, and are let go."""
        self.is_acknowledged = True
        self.records = []

    def hold(self) -> None:
        """Its records are let go; some of them are kept elsewhere until they are applied."""
        self.records = []


class ChunkConsumerThread(AIOKafkaConsumerThread):
    """Its aiokafka consumer waits briefly for a fetch, and fetches little at once."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        fetching = self.transport.fetching
        consumer._fetch_min_bytes = fetching.min_bytes
        consumer._fetch_max_wait_ms = fetching.brief_wait_ms
        consumer._fetch_max_bytes = FETCH_MAX_BYTES
        return consumer

    async def on_start(self) -> None:
        """Faust's, which starts the aiokafka consumer; then its fetcher learns when to be brief."""
        await super().on_start()
        be_brief_when_it_matters(self._ensure_consumer()._fetcher, self.transport.fetching)

    async def getmany(self, active_partitions: Any, timeout: float) -> Any:  # noqa: ASYNC109 - Faust's signature
        """The same without Faust's method queue, whose workers cost more wake-ups than the call itself."""
        consumer = self._ensure_consumer()
        fetching = self._fetch_records(
            consumer, active_partitions, timeout=timeout, max_records=consumer._max_poll_records
        )
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(fetching, self.thread_loop))


def be_brief_when_it_matters(fetcher: Any, fetching: Fetching) -> None:
    """Makes aiokafka's fetcher decide with every fetch how long it may be held."""
    plan_fetches = fetcher._get_actions_per_node

    def plan_fetches_with_wait(assignment: Any) -> Any:
        fetcher._fetch_max_wait_ms = fetching.brief_wait_ms if fetcher._records else fetching.long_wait_ms
        return plan_fetches(assignment)

    fetcher._get_actions_per_node = plan_fetches_with_wait


class ChunkConsumer(Consumer):
    """Yields chunks: a message's `value` is the Chunk, its `offset` that of the last record.

    The chunks that were handed over since the last seek stand in line, per partition. Only what is acknowledged from
    the head of a line on is committed, so a chunk that got lost on its way (in a rebalance, say) holds back what
    follows, until a seek to the committed offsets brings it again.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lines: defaultdict[Any, deque[Chunk]] = defaultdict(deque)
        self._seeks = 0

    def _new_consumer_thread(self) -> ChunkConsumerThread:
        return ChunkConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[Any, Any]]:  # noqa: ASYNC109 - Faust's signature
        """The chunks of one fetch. If a rebalance or a seek came in between, what is left of the fetch is dropped and
        fetched again: the positions have moved past it, so they are set back."""
        if not self.flow_active:
            await self.wait(self.can_resume_flow)
        era = self._era()
        fetched, _ = await self._wait_next_records(timeout)
        if not fetched or self.should_stop:
            return
        for partition, records in fetched.items():
            if not self.flow_active or self._era() != era:
                await self._seek_back()
                return
            self.app.monitor.track_tp_end_offset(partition, self.highwater(partition))
            chunk = Chunk(records)
            self._lines[partition].append(chunk)
            yield partition, self._message(partition, chunk)

    def abandon(self, message: Any) -> None:
        """Faust need not wait for the message before it rebalances or stops: it is not acknowledged, or its chunk is
        later, without Faust."""
        self._unacked_messages.discard(message)
        notify(self._waiting_for_ack)

    def ack(self, message: Any) -> bool:
        """Faust's, and the chunk knows."""
        message.value.acknowledge()
        return bool(super().ack(message))

    def find_failure(self) -> BaseException | None:
        """Why aiokafka's consumer fetches no more, or is no member of its group any more; None while all is well."""
        consumer = getattr(self._thread, "_consumer", None)
        if consumer is None or consumer._coordinator is None:
            return None
        failure: BaseException | None = getattr(consumer._coordinator, "_pending_exception", None)
        for task in (getattr(consumer._coordinator, "_coordination_task", None), consumer._fetcher._fetch_task):
            if failure is None and task is not None and task.done() and not task.cancelled():
                failure = task.exception() or RuntimeError(f"{task.get_coro().__qualname__} has ended")
        return failure

    async def perform_seek(self) -> None:
        """Faust's; the lines begin anew. (Twice: what is handed over while it waits is not in line either.)"""
        self._forget(list(self._lines))
        await super().perform_seek()
        self._forget(list(self._lines))

    async def seek(self, partition: Any, offset: int) -> None:
        """Faust's; the partition's line begins anew."""
        self._forget([partition])
        await super().seek(partition, offset)

    async def seek_wait(self, partitions: Mapping[Any, int]) -> None:
        """Faust's; the partitions' lines begin anew."""
        self._forget(partitions)
        await super().seek_wait(partitions)
        self._forget(partitions)

    def on_buffer_full(self, tp: Any) -> None:
        """Nothing: putting into a full buffer waits, and that holds the fetches back. (Faust would take the partition
        out of the next fetch, drop what the present one brought, and sleep a second when no partition is left.)"""

    def _era(self) -> tuple[Any, int]:
        """Changes when positions may have been set anew."""
        return self.app.consumer_generation_id, self._seeks

    def _forget(self, partitions: Iterable[Any]) -> None:
        self._seeks += 1
        for partition in partitions:
            self._lines.pop(partition, None)

    async def _seek_back(self) -> None:
        try:
            await self.perform_seek()
        except Exception:
            # While the flow is stopped, a rebalance is under way, which seeks when it ends, or the app stops.
            if self.flow_active:
                raise
            self.log.info("the positions are set back when the rebalance has ended", exc_info=True)

    def _message(self, partition: Any, chunk: Chunk) -> ConsumerMessage:
        last = chunk.records[-1]
        return ConsumerMessage(
            last.topic,
            last.partition,
            last.offset,
            last.timestamp / 1000,
            None,
            None,
            None,
            chunk,
            None,
            tp=partition,
            generation_id=self.app.consumer_generation_id,
        )

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[Any]:
        """The partitions that have something to commit. (Faust asks `_acked`, and forgets it when a rebalance
        begins.)"""
        for partition, line in list(self._lines.items()):
            is_asked_for = topics is None or partition in topics or partition.topic in topics
            if is_asked_for and line and line[0].is_acknowledged:
                yield partition

    def _new_offset(self, tp: Any) -> int | None:
        """The offset to commit: the end of the last chunk that was acknowledged with all before it."""
        self._acked.pop(tp, None)
        self._acked_index.pop(tp, None)
        next_offset = None
        line = self._lines.get(tp)
        while line and line[0].is_acknowledged:
            next_offset = line.popleft().next_offset
        return next_offset

    async def _add_gap(self, tp: Any, offset_from: int, offset_to: int) -> None:
        """Nothing: between the ends of two chunks there are always offsets that were not seen as messages."""


class ChunkTransport(Transport):
    """The transport to give to a Faust app before it starts: `app.transport = ChunkTransport(app.conf.broker, app)`."""

    Consumer = ChunkConsumer

    def __init__(self, *args: Any, fetching: Fetching = PROMPT, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fetching = fetching
