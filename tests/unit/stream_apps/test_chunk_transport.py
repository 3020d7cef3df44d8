"""The seams of Faust on which the chunk transport stands, and what it makes of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any, NamedTuple

import faust
import pytest
from aiokafka.consumer.fetcher import Fetcher as KafkaFetcher
from faust.transport.consumer import Consumer as FaustConsumer
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread
from faust.types import TP
from prometheus_client import CollectorRegistry
from redis.exceptions import (
    BusyLoadingError,
    MasterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError

from schemas.topics import CONVERSATION_EVENTS
from stream_apps.base import (
    BATCH_RECORDS,
    BUFFERED_CHUNKS,
    CHUNK_BYTES,
    CHUNK_RECORDS,
    StreamApp,
    Watchdog,
    add_agent,
    is_passing,
)
from stream_apps.chunk_transport import (
    FETCH_MAX_BYTES,
    PROMPT,
    UNHURRIED,
    Chunk,
    ChunkConsumer,
    ChunkConsumerThread,
    ChunkTransport,
    Fetching,
    be_brief_when_it_matters,
)
from stream_apps.dead_letter_limit import TooManyDeadLetters
from stream_apps.records import Record
from stream_apps.settings import StreamSettings
from stream_apps.telemetry import StreamMetrics

ONE, OTHER = TP("conversation.events", 1), TP("conversation.events", 2)


class FetchedRecord(NamedTuple):
    """What aiokafka hands over."""

    topic: str
    partition: int
    offset: int
    timestamp: int = 1_700_000_000_000
    key: bytes | None = None
    value: bytes | None = None
    headers: Sequence[tuple[str, bytes | None]] = ()


def records(partition: TP, first: int, last: int) -> list[Record]:
    return [FetchedRecord(partition.topic, partition.partition, offset) for offset in range(first, last + 1)]


def make_app(settings: StreamSettings) -> StreamApp:
    metrics = StreamMetrics("test", CollectorRegistry())
    return StreamApp("test", settings, parts=[], metrics=metrics, watchdog=Watchdog(30))


@pytest.fixture
async def app() -> AsyncIterator[StreamApp]:
    app = make_app(StreamSettings())
    yield app
    app.consumer._thread.thread_loop.close()  # made with the thread, which never started


@pytest.fixture
async def consumer(app: StreamApp, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The app's consumer with its flow active, whose fetches the test decides, and whose seeks it counts."""
    consumer: Any = app.consumer
    assert isinstance(consumer, ChunkConsumer)
    consumer.flow_active = True
    consumer.fetched = {}
    consumer.sought = 0
    app.topics._acking_topics.add(ONE.topic)
    monkeypatch.setattr(type(app), "consumer_generation_id", 1, raising=False)

    async def fetch(_timeout: float) -> Any:
        return consumer.fetched, {ONE, OTHER}

    async def seek_to_committed() -> dict[TP, int]:
        consumer.sought += 1
        return {ONE: 5, OTHER: 0}

    monkeypatch.setattr(consumer, "_wait_next_records", fetch)
    monkeypatch.setattr(consumer, "seek_to_committed", seek_to_committed)
    monkeypatch.setattr(consumer, "highwater", lambda _partition: 100)
    return consumer


async def take(consumer: Any, *fetches: dict[TP, list[Record]]) -> list[Any]:
    """The messages of some fetches."""
    messages = []
    for fetched in fetches:
        consumer.fetched = fetched
        messages += [message async for _, message in consumer.getmany(timeout=1.0)]
    return messages


def commitable(consumer: Any) -> dict[TP, int]:
    """What Faust would commit now."""
    offsets: dict[TP, int] = consumer._filter_committable_offsets(list(consumer._filter_tps_with_pending_acks()))
    return offsets


def test_faust_is_the_version_whose_inside_is_known() -> None:
    assert version("faust-streaming") == "0.15.3"


def test_the_seams_are_where_they_were() -> None:
    for owner, name in [
        (FaustConsumer, "getmany"),
        (FaustConsumer, "_new_offset"),
        (FaustConsumer, "_add_gap"),
        (FaustConsumer, "_wait_next_records"),
        (FaustConsumer, "perform_seek"),
        (FaustConsumer, "seek"),
        (FaustConsumer, "seek_wait"),
        (FaustConsumer, "ack"),
        (FaustConsumer, "on_buffer_full"),
        (FaustConsumer, "_filter_tps_with_pending_acks"),
        (AIOKafkaConsumerThread, "_fetch_records"),
        (KafkaFetcher, "_get_actions_per_node"),
        (AIOKafkaConsumerThread, "_create_worker_consumer"),
    ]:
        assert callable(getattr(owner, name))
    assert ChunkTransport.Consumer is ChunkConsumer


async def test_a_fetch_becomes_one_message_per_partition(consumer: Any) -> None:
    messages = await take(consumer, {ONE: records(ONE, 5, 9), OTHER: records(OTHER, 0, 0)})
    assert [(m.tp, m.offset, len(m.value.records)) for m in messages] == [(ONE, 9, 5), (OTHER, 0, 1)]


async def test_a_new_generation_cuts_the_fetch_short_and_sets_the_positions_back(
    consumer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer.fetched = {ONE: records(ONE, 0, 3), OTHER: records(OTHER, 0, 3)}
    taken = []
    async for tp, _ in consumer.getmany(timeout=1.0):
        taken.append(tp)
        monkeypatch.setattr(type(consumer.app), "consumer_generation_id", 2, raising=False)
    assert (taken, consumer.sought) == ([ONE], 1)


async def test_a_fetch_that_began_before_a_seek_is_dropped_and_fetched_again(
    consumer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fetch_during_a_seek(_timeout: float) -> Any:
        await consumer.perform_seek()
        return {ONE: records(ONE, 50, 59)}, {ONE}

    monkeypatch.setattr(consumer, "_wait_next_records", fetch_during_a_seek)
    assert [message async for _, message in consumer.getmany(timeout=1.0)] == []
    assert consumer.sought == 2


async def test_what_was_fetched_while_the_flow_was_stopped_is_fetched_again(
    consumer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fetch_until_the_flow_stops(_timeout: float) -> Any:
        consumer.stop_flow()
        return {ONE: records(ONE, 0, 3)}, {ONE}

    monkeypatch.setattr(consumer, "_wait_next_records", fetch_until_the_flow_stops)
    assert [message async for _, message in consumer.getmany(timeout=1.0)] == []
    assert consumer.sought == 1


@pytest.mark.parametrize("is_flow_active", [True, False])
async def test_a_seek_that_fails_is_fatal_unless_a_rebalance_will_seek(
    consumer: Any, monkeypatch: pytest.MonkeyPatch, is_flow_active: bool
) -> None:
    async def fail() -> None:
        raise ConnectionError

    monkeypatch.setattr(consumer, "seek_to_committed", fail)
    consumer.flow_active = is_flow_active
    if is_flow_active:
        with pytest.raises(ConnectionError):
            await consumer._seek_back()
    else:
        await consumer._seek_back()


async def test_a_full_buffer_drops_nothing(consumer: Any) -> None:
    consumer._set_active_tps({ONE, OTHER})
    consumer.fetched = {ONE: records(ONE, 0, 3), OTHER: records(OTHER, 0, 3)}
    taken = []
    async for tp, _ in consumer.getmany(timeout=1.0):
        taken.append(tp)
        consumer.on_buffer_full(OTHER)
    assert taken == [ONE, OTHER]
    assert consumer._get_active_partitions() == {ONE, OTHER}


async def test_the_offset_to_commit_is_the_end_of_the_last_chunk_acknowledged_in_line(consumer: Any) -> None:
    first, second, third = await take(consumer, *({ONE: records(ONE, n, n + 9)} for n in (0, 10, 20)))
    assert commitable(consumer) == {}
    consumer.ack(second)
    assert commitable(consumer) == {}, "the chunk before it is not applied yet"
    consumer.ack(first)
    assert commitable(consumer) == {ONE: 20}
    consumer.ack(third)
    assert commitable(consumer) == {ONE: 30}
    assert commitable(consumer) == {}


async def test_a_chunk_that_was_given_back_is_never_committed_past(consumer: Any) -> None:
    first, second = await take(consumer, {ONE: records(ONE, 0, 9)}, {ONE: records(ONE, 10, 19)})
    consumer.track_message(first)
    consumer.abandon(first)
    assert not consumer.unacked
    consumer.ack(second)
    assert commitable(consumer) == {}


async def test_an_acknowledgement_from_before_a_seek_says_nothing_about_what_comes_after(consumer: Any) -> None:
    (old,) = await take(consumer, {ONE: records(ONE, 15, 19)})
    await consumer.perform_seek()
    (again,) = await take(consumer, {ONE: records(ONE, 5, 19)})
    consumer.ack(old)
    assert commitable(consumer) == {}
    consumer.ack(again)
    assert commitable(consumer) == {ONE: 20}


async def test_what_was_acknowledged_before_a_rebalance_began_is_still_committed(consumer: Any) -> None:
    (message,) = await take(consumer, {ONE: records(ONE, 0, 9)})
    consumer.ack(message)
    consumer._acked.pop(ONE)  # as Faust does when partitions are revoked, before it commits for the last time
    consumer._acked_index.pop(ONE)
    assert commitable(consumer) == {ONE: 10}


async def test_an_acknowledged_chunk_lets_its_records_go(consumer: Any) -> None:
    (message,) = await take(consumer, {ONE: records(ONE, 0, 9)})
    consumer.ack(message)
    assert (message.value.records, message.value.next_offset) == ([], 10)


async def test_offsets_inside_a_chunk_are_no_gap(consumer: Any) -> None:
    await consumer._add_gap(ONE, 3, 900)
    assert not consumer._gap.get(ONE)


async def test_the_consumer_waits_briefly_for_a_fetch_and_takes_a_bounded_number(app: StreamApp) -> None:
    thread = app.consumer._new_consumer_thread()
    assert isinstance(thread, ChunkConsumerThread)
    app.consumer.in_transaction = False
    kafka_consumer = thread._create_consumer(loop=asyncio.get_running_loop())
    try:
        assert kafka_consumer._fetch_max_wait_ms == PROMPT.brief_wait_ms
        assert kafka_consumer._fetch_min_bytes == PROMPT.min_bytes
        assert kafka_consumer._max_poll_records == CHUNK_RECORDS
        assert kafka_consumer._max_partition_fetch_bytes == CHUNK_BYTES
        assert kafka_consumer._fetch_max_bytes == FETCH_MAX_BYTES
        assert kafka_consumer._enable_auto_commit is False
    finally:
        kafka_consumer._closed = True  # it was never started: nothing to close, and no warning about it
        thread.thread_loop.close()


async def test_a_chunk_is_not_decoded(app: StreamApp) -> None:
    topic = app.topic("conversation.events", key_serializer="raw", value_serializer="raw")
    chunk = Chunk(records(ONE, 0, 3))
    message = app.consumer._message(ONE, chunk)
    event = await topic.decode(message)
    assert event.value is chunk


async def test_the_apps_settings_are_those_that_lose_nothing(app: StreamApp) -> None:
    conf = app.conf
    assert (conf.stream_wait_empty, conf.topic_allow_declare, conf.topic_disable_leader) == (True, False, True)
    assert (conf.broker_session_timeout, conf.broker_heartbeat_interval) == (6.0, 1.5)
    assert conf.processing_guarantee == faust.types.ProcessingGuarantee.AT_LEAST_ONCE


async def test_what_waits_in_memory_is_bounded(app: StreamApp) -> None:
    assert app.conf.stream_buffer_maxsize == BUFFERED_CHUNKS
    assert app.topic("conversation.events").queue.maxsize == BUFFERED_CHUNKS
    assert BUFFERED_CHUNKS * CHUNK_BYTES <= 8 * 1024 * 1024


@pytest.mark.parametrize(
    ("untaken", "fetching", "wait_ms"),
    [
        ({}, PROMPT, PROMPT.long_wait_ms),
        ({ONE: "a result"}, PROMPT, PROMPT.brief_wait_ms),
        ({}, UNHURRIED, UNHURRIED.long_wait_ms),
    ],
)
def test_a_fetch_is_brief_only_if_it_leaves_a_partition_out(
    untaken: dict[TP, str], fetching: Fetching, wait_ms: int
) -> None:
    fetcher = SimpleNamespace(_records=untaken, _fetch_max_wait_ms=0)
    fetcher._get_actions_per_node = lambda _assignment: fetcher._fetch_max_wait_ms
    be_brief_when_it_matters(fetcher, fetching)
    assert fetcher._get_actions_per_node(None) == wait_ms


def test_the_watchdog_bites_only_when_records_wait_and_none_is_committed() -> None:
    now = 0.0
    watchdog = Watchdog(30, clock=lambda: now)
    now = 100.0
    assert not watchdog.is_stalled(lag=0, committed=7)
    now = 129.0
    assert not watchdog.is_stalled(lag=5, committed=7)
    now = 131.0
    assert watchdog.is_stalled(lag=5, committed=7)
    assert not watchdog.is_stalled(lag=5, committed=8)
    now = 162.0
    assert watchdog.is_stalled(lag=5, committed=8)
    watchdog.excuse()
    assert not watchdog.is_stalled(lag=5, committed=8)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RedisConnectionError("refused"), True),
        (OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), True),
        (ResponseError("OOM command not allowed when used memory > 'maxmemory'."), True),
        (ReadOnlyError("You can't write against a read only replica."), True),
        (BusyLoadingError("Redis is loading the dataset in memory"), True),
        (MasterDownError("Link with MASTER is down"), True),
        (ResponseError("MISCONF Redis is configured to save RDB snapshots"), True),
        (ResponseError("WRONGTYPE Operation against a key"), False),
        (ValueError("a bug"), False),
    ],
)
def test_what_passes_is_told_from_what_does_not(error: Exception, expected: bool) -> None:
    assert is_passing(error) is expected


class Stream:
    """A stream of the events that its queue holds, as far as an agent looks."""

    def __init__(self, *events: Any) -> None:
        self.channel = SimpleNamespace(queue=asyncio.Queue[Any]())
        for event in events:
            self.channel.queue.put_nowait(event)

    def noack(self) -> Stream:
        return self

    async def events(self) -> AsyncIterator[Any]:
        while not self.channel.queue.empty():
            yield self.channel.queue.get_nowait()


def events_of(consumer: Any, messages: list[Any]) -> list[Any]:
    return [SimpleNamespace(message=m, value=m.value, ack=partial(consumer.ack, m)) for m in messages]


async def run_agent(app: StreamApp, handler: Any, stream: Stream) -> None:
    metrics = StreamMetrics("agent", CollectorRegistry())
    add_agent(app, CONVERSATION_EVENTS, handler, metrics, Watchdog(30))
    await next(iter(app.agents.values())).fun(stream)


async def test_an_agent_takes_all_chunks_that_wait_and_acknowledges_them(app: StreamApp, consumer: Any) -> None:
    app.flow_control.resume()
    messages = await take(consumer, {ONE: records(ONE, 0, 3), OTHER: records(OTHER, 0, 1)})
    batches: list[int] = []

    async def handler(batch: Sequence[Record]) -> None:
        batches.append(len(batch))

    await run_agent(app, handler, Stream(*events_of(consumer, messages)))
    assert batches == [6]
    assert commitable(consumer) == {ONE: 4, OTHER: 2}


async def test_a_batch_is_bounded(app: StreamApp, consumer: Any) -> None:
    app.flow_control.resume()
    fetches = [{ONE: records(ONE, n * 600, n * 600 + 599)} for n in range(5)]
    batches: list[int] = []

    async def handler(batch: Sequence[Record]) -> None:
        batches.append(len(batch))

    await run_agent(app, handler, Stream(*events_of(consumer, await take(consumer, *fetches))))
    assert batches == [1200, 1200, 600]
    assert max(batches) < BATCH_RECORDS + CHUNK_RECORDS


async def test_a_chunk_from_before_a_rebalance_is_left_out_of_a_batch(
    app: StreamApp, consumer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    app.flow_control.resume()
    (old,) = await take(consumer, {OTHER: records(OTHER, 0, 1)})
    monkeypatch.setattr(type(app), "consumer_generation_id", 2, raising=False)
    (new,) = await take(consumer, {ONE: records(ONE, 0, 3)})
    applied: list[Record] = []

    async def handler(batch: Sequence[Record]) -> None:
        applied.extend(batch)

    await run_agent(app, handler, Stream(*events_of(consumer, [new, old])))
    assert {record.partition for record in applied} == {ONE.partition}
    assert commitable(consumer) == {ONE: 4}


async def test_what_passes_is_retried_in_place(app: StreamApp, consumer: Any) -> None:
    app.flow_control.resume()
    attempts = 0

    async def handler(_batch: Sequence[Record]) -> None:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            raise RedisConnectionError

    await run_agent(app, handler, Stream(*events_of(consumer, await take(consumer, {ONE: records(ONE, 0, 3)}))))
    assert attempts == 3
    assert commitable(consumer) == {ONE: 4}


async def test_a_batch_with_something_unsettled_is_acknowledged_when_that_is_settled(
    app: StreamApp, consumer: Any
) -> None:
    app.flow_control.resume()
    first, second = await take(consumer, {ONE: records(ONE, 0, 3)}, {ONE: records(ONE, 4, 7)})
    consumer.track_message(first)
    unsettled: list[list[asyncio.Future[None]]] = [[asyncio.get_running_loop().create_future() for _ in range(2)], []]

    async def handler(_batch: Sequence[Record]) -> list[asyncio.Future[None]]:
        return unsettled.pop(0)

    parked = unsettled[0]
    await run_agent(app, handler, Stream(*events_of(consumer, [first])))
    await run_agent(app, handler, Stream(*events_of(consumer, [second])))
    assert not consumer.unacked, "a rebalance or a stop does not wait for it"
    assert first.value.records == [], "and it holds no memory but for what is parked"
    assert commitable(consumer) == {}
    parked[0].set_result(None)
    await asyncio.sleep(0)
    assert commitable(consumer) == {}
    parked[1].set_result(None)
    await asyncio.sleep(0)
    assert commitable(consumer) == {ONE: 8}


async def test_what_is_settled_after_a_rebalance_is_not_acknowledged_any_more(app: StreamApp, consumer: Any) -> None:
    app.flow_control.resume()
    messages = await take(consumer, {ONE: records(ONE, 15, 19)})
    parked = asyncio.get_running_loop().create_future()

    async def handler(_batch: Sequence[Record]) -> list[asyncio.Future[None]]:
        return [parked]

    await run_agent(app, handler, Stream(*events_of(consumer, messages)))
    await consumer.perform_seek()
    (again,) = await take(consumer, {ONE: records(ONE, 5, 19)})
    parked.set_result(None)
    await asyncio.sleep(0)
    assert commitable(consumer) == {}
    consumer.ack(again)
    assert commitable(consumer) == {ONE: 20}


class Ended(BaseException):
    """The process would have ended."""


@pytest.fixture
def endings(monkeypatch: pytest.MonkeyPatch) -> None:
    def end() -> None:
        raise Ended

    monkeypatch.setattr("stream_apps.base.end_process", end)


@pytest.mark.usefixtures("endings")
@pytest.mark.parametrize("error", [ValueError("a bug"), ResponseError("WRONGTYPE"), TooManyDeadLetters("enough")])
async def test_an_exception_in_the_middle_of_a_batch_ends_the_process_with_nothing_acknowledged(
    app: StreamApp, consumer: Any, error: Exception
) -> None:
    app.flow_control.resume()
    messages = await take(consumer, {ONE: records(ONE, 0, 3)})

    async def handler(_batch: Sequence[Record]) -> None:
        raise error

    with pytest.raises(Ended):
        await run_agent(app, handler, Stream(*events_of(consumer, messages)))
    assert commitable(consumer) == {}


@pytest.mark.usefixtures("endings")
async def test_an_agent_whose_stream_fails_ends_the_process(app: StreamApp) -> None:
    class Failing(Stream):
        async def events(self) -> AsyncIterator[Any]:
            raise AssertionError("a bug of Faust's")
            yield

    async def handler(_batch: Sequence[Record]) -> None:
        raise AssertionError("there is no batch")

    with pytest.raises(Ended):
        await run_agent(app, handler, Failing())


async def done(error: Exception | None = None) -> None:
    """A task of aiokafka's that has ended."""
    if error is not None:
        raise error


@pytest.mark.parametrize(
    ("fetching", "coordinating", "pending", "expected"),
    [
        (None, None, None, None),
        (ValueError("fetch"), None, None, "fetch"),
        (None, ValueError("coordinate"), None, "coordinate"),
        (None, None, ValueError("fenced"), "fenced"),
    ],
)
async def test_a_consumer_that_has_failed_without_fausts_notice_is_found(
    consumer: Any,
    fetching: Exception | None,
    coordinating: Exception | None,
    pending: Exception | None,
    expected: str | None,
) -> None:
    assert consumer.find_failure() is None, "it has not been started"

    def task(error: Exception | None) -> asyncio.Task[Any]:
        return asyncio.create_task(asyncio.sleep(60) if error is None else done(error))

    tasks = [task(fetching), task(coordinating)]
    await asyncio.sleep(0.01)
    consumer._thread._consumer = SimpleNamespace(
        _fetcher=SimpleNamespace(_fetch_task=tasks[0]),
        _coordinator=SimpleNamespace(_coordination_task=tasks[1], _pending_exception=pending),
    )
    failure = consumer.find_failure()
    assert (None if failure is None else str(failure)) == expected
    consumer._thread._consumer = None
    for each in tasks:
        each.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_worker_has_the_name_in_its_group_that_it_was_given() -> None:
    named = make_app(StreamSettings(group_instance_id="test-1"))
    unnamed = make_app(StreamSettings())
    assert (named.conf.consumer_group_instance_id, unnamed.conf.consumer_group_instance_id) == ("test-1", None)


async def test_a_batch_is_given_back_when_the_app_stops_while_redis_is_away(app: StreamApp, consumer: Any) -> None:
    app.flow_control.resume()
    messages = await take(consumer, {ONE: records(ONE, 0, 3)})
    consumer.track_message(messages[0])

    async def handler(_batch: Sequence[Record]) -> None:
        consumer.stop_flow()
        app.flow_control.suspend()
        raise RedisConnectionError

    await asyncio.wait_for(run_agent(app, handler, Stream(*events_of(consumer, messages))), 1)
    assert not consumer.unacked, "Faust would wait for it for as long as Redis is away"
    assert commitable(consumer) == {}
