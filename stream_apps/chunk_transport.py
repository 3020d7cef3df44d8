"""Faust's Kafka consumer, but it hands over one message per partition and fetch: a chunk of raw records.

Faust's own path costs a coroutine, a queue put and an acknowledgement per record, and tops out near 5,000 records/s.
This file is the only one that knows Faust's inside. It stands on these seams of faust-streaming 0.15.3, which is
pinned exactly, and tests/unit/stream_apps/test_chunk_transport.py watches them:
- `Transport.Consumer` names the consumer's class, `Consumer._new_consumer_thread` its thread's;
- `Consumer.getmany` yields (partition, message) to `_drain_messages`, which tracks the read offset by `message.offset`;
- `Consumer._new_offset` says what to commit from `_acked`, and `_add_gap` notes offsets that were never seen;
- `AIOKafkaConsumerThread._create_worker_consumer` makes the aiokafka consumer, which reads `_fetch_max_wait_ms` when it
  starts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport
from faust.types.tuples import ConsumerMessage

FETCH_MAX_WAIT_MS = 10
"""How long the broker may hold a fetch that finds nothing. (Faust fixes 1,500; with one fetch in flight per broker, a
partition that was drained late would wait for it.)"""


class ChunkConsumerThread(AIOKafkaConsumerThread):
    """Its aiokafka consumer waits briefly for a fetch."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_MAX_WAIT_MS
        return consumer


class ChunkConsumer(Consumer):
    """Yields chunks. A chunk's `value` is the list of its aiokafka records, in order; its `offset` the last one's."""

    def _new_consumer_thread(self) -> ChunkConsumerThread:
        return ChunkConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[Any, Any]]:  # noqa: ASYNC109 - Faust's signature
        """The chunks of one fetch. What is not yielded, because a rebalance began, is fetched again after it: Faust
        then seeks to the committed offsets."""
        chunks, active_partitions = await self._wait_next_records(timeout)
        if chunks is None or self.should_stop:
            return
        if not self.flow_active:
            await self.perform_seek()
            return
        generation_id = self.app.consumer_generation_id
        for partition, records in chunks.items():
            if not self.flow_active or self.app.consumer_generation_id != generation_id:
                return
            if records and (active_partitions is None or partition in active_partitions):
                self.app.monitor.track_tp_end_offset(partition, self.highwater(partition))
                yield partition, self._chunk(partition, records)

    def _chunk(self, partition: Any, records: list[Any]) -> ConsumerMessage:
        last = records[-1]
        return ConsumerMessage(
            last.topic,
            last.partition,
            last.offset,
            last.timestamp / 1000,
            last.timestamp_type,
            None,
            None,
            records,
            None,
            tp=partition,
            generation_id=self.app.consumer_generation_id,
        )

    def _new_offset(self, tp: Any) -> int | None:
        """The offset to commit. Chunks are acknowledged whole and in order, so it is the end of the last one."""
        acked = self._acked[tp]
        if not acked:
            return None
        last = max(acked)
        acked.clear()
        self._acked_index[tp].clear()
        return int(last) + 1

    async def _add_gap(self, tp: Any, offset_from: int, offset_to: int) -> None:
        """Nothing: between the ends of two chunks there are always offsets that were not seen as messages."""


class ChunkTransport(Transport):
    """The transport to give to a Faust app before it starts: `app.transport = ChunkTransport(app.conf.broker, app)`."""

    Consumer = ChunkConsumer
