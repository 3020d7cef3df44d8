"""The seams of Faust on which the chunk transport stands, and what it makes of them."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import Any, NamedTuple
from unittest.mock import Mock

import faust
import pytest
from faust.transport.consumer import Consumer as FaustConsumer
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread
from faust.types import TP

from stream_apps.base import BATCH_RECORDS, StreamApp, Watchdog
from stream_apps.chunk_transport import FETCH_MAX_WAIT_MS, ChunkConsumer, ChunkConsumerThread, ChunkTransport
from stream_apps.settings import StreamSettings

ONE, OTHER = TP("conversation.events", 1), TP("conversation.events", 2)


class FetchedRecord(NamedTuple):
    """What aiokafka hands over, as far as the transport looks."""

    topic: str
    partition: int
    offset: int
    timestamp: int = 1_700_000_000_000
    timestamp_type: int = 1


def records(partition: TP, first: int, last: int) -> list[FetchedRecord]:
    return [FetchedRecord(partition.topic, partition.partition, offset) for offset in range(first, last + 1)]


@pytest.fixture
async def app() -> AsyncIterator[StreamApp]:
    app = StreamApp("test", StreamSettings(), parts=[], watchdog=Watchdog(30))
    yield app
    app.consumer._thread.thread_loop.close()  # made with the thread, which never started


@pytest.fixture
async def consumer(app: StreamApp, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The app's consumer with its flow active, whose fetches the test decides."""
    consumer: Any = app.consumer
    assert isinstance(consumer, ChunkConsumer)
    consumer.flow_active = True
    consumer.fetched = {}
    monkeypatch.setattr(type(app), "consumer_generation_id", 1, raising=False)

    async def fetch(_timeout: float) -> Any:
        return consumer.fetched, {ONE, OTHER}

    monkeypatch.setattr(consumer, "_wait_next_records", fetch)
    monkeypatch.setattr(consumer, "highwater", lambda _partition: 100)
    return consumer


async def chunks(consumer: Any) -> list[tuple[TP, int, int]]:
    return [(tp, message.offset, len(message.value)) async for tp, message in consumer.getmany(timeout=1.0)]


def test_faust_is_the_version_whose_inside_is_known() -> None:
    assert version("faust-streaming") == "0.15.3"


def test_the_seams_are_where_they_were() -> None:
    for owner, name in [
        (FaustConsumer, "getmany"),
        (FaustConsumer, "_new_offset"),
        (FaustConsumer, "_add_gap"),
        (FaustConsumer, "_wait_next_records"),
        (FaustConsumer, "perform_seek"),
        (AIOKafkaConsumerThread, "_create_worker_consumer"),
    ]:
        assert callable(getattr(owner, name))
    assert ChunkTransport.Consumer is ChunkConsumer


async def test_a_fetch_becomes_one_message_per_partition(consumer: Any) -> None:
    consumer.fetched = {ONE: records(ONE, 5, 9), OTHER: records(OTHER, 0, 0)}
    assert await chunks(consumer) == [(ONE, 9, 5), (OTHER, 0, 1)]


async def test_a_partition_that_is_not_active_is_left_out(consumer: Any) -> None:
    revoked = TP("conversation.events", 7)
    consumer.fetched = {revoked: records(revoked, 0, 3), ONE: records(ONE, 0, 3), OTHER: []}
    assert await chunks(consumer) == [(ONE, 3, 4)]


async def test_a_new_generation_cuts_the_fetch_short(consumer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    consumer.fetched = {ONE: records(ONE, 0, 3), OTHER: records(OTHER, 0, 3)}
    taken = []
    async for tp, _ in consumer.getmany(timeout=1.0):
        taken.append(tp)
        monkeypatch.setattr(type(consumer.app), "consumer_generation_id", 2, raising=False)
    assert taken == [ONE]


async def test_what_was_fetched_while_the_flow_is_stopped_is_sought_again(
    consumer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sought = Mock()

    async def perform_seek() -> None:
        sought()

    monkeypatch.setattr(consumer, "perform_seek", perform_seek)
    consumer.fetched = {ONE: records(ONE, 0, 3)}
    consumer.flow_active = False
    assert await chunks(consumer) == []
    sought.assert_called_once_with()


async def test_the_offset_to_commit_is_the_end_of_the_last_acknowledged_chunk(consumer: Any) -> None:
    consumer._acked, consumer._acked_index = defaultdict(list), defaultdict(set)
    assert consumer._new_offset(ONE) is None
    consumer._acked[ONE] = [9, 17]
    consumer._acked_index[ONE] = {9, 17}
    assert consumer._new_offset(ONE) == 18
    assert (consumer._acked[ONE], consumer._acked_index[ONE]) == ([], set())


async def test_offsets_inside_a_chunk_are_no_gap(consumer: Any) -> None:
    await consumer._add_gap(ONE, 3, 900)
    assert not consumer._gap.get(ONE)


async def test_the_consumer_waits_briefly_for_a_fetch_and_takes_a_bounded_number(app: StreamApp) -> None:
    thread = app.consumer._new_consumer_thread()
    assert isinstance(thread, ChunkConsumerThread)
    app.consumer.in_transaction = False
    kafka_consumer = thread._create_consumer(loop=asyncio.get_running_loop())
    try:
        assert kafka_consumer._fetch_max_wait_ms == FETCH_MAX_WAIT_MS
        assert kafka_consumer._max_poll_records == BATCH_RECORDS
        assert kafka_consumer._enable_auto_commit is False
    finally:
        kafka_consumer._closed = True  # it was never started: nothing to close, and no warning about it
        thread.thread_loop.close()


async def test_a_chunk_is_not_decoded(app: StreamApp) -> None:
    topic = app.topic("conversation.events", key_serializer="raw", value_serializer="raw")
    chunk: Any = records(ONE, 0, 3)
    message = app.consumer._chunk(ONE, chunk)
    event = await topic.decode(message)
    assert event.value is chunk


async def test_the_apps_settings_are_those_that_lose_nothing(app: StreamApp) -> None:
    conf = app.conf
    assert (conf.stream_wait_empty, conf.topic_allow_declare, conf.topic_disable_leader) == (True, False, True)
    assert (conf.broker_session_timeout, conf.broker_heartbeat_interval) == (6.0, 1.5)
    assert conf.processing_guarantee == faust.types.ProcessingGuarantee.AT_LEAST_ONCE


def test_the_watchdog_bites_only_when_records_wait() -> None:
    now = 0.0
    watchdog = Watchdog(30, clock=lambda: now)
    now = 100.0
    assert not watchdog.is_stalled(lag=0)
    now = 129.0
    assert not watchdog.is_stalled(lag=5)
    now = 131.0
    assert watchdog.is_stalled(lag=5)
    watchdog.feed()
    assert not watchdog.is_stalled(lag=5)
