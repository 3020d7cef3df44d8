"""Timeline workers that are killed, paused, added and taken away, and records that nobody can read, under 300
messages/s over 100 conversations: nothing is lost, doubled or reordered.

`make faults` runs all of it, and test_timeline_storms.py; otherwise it is a short selection.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
import uuid

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from infra.local.stack import Stack
from schemas.ids import conversation_key
from schemas.redis_keys import participants_key, timeline_key
from schemas.topics import CONVERSATION_EVENTS, CONVERSATION_EVENTS_DEAD_LETTER
from tests.faults.timeline_workers import (
    CONVERSATIONS,
    IS_WHOLE,
    RATE,
    Workers,
    connect_redis,
    loaded,
    wait_until_committed,
    warm_up,
    worst,
)

KILLS = 10 if IS_WHOLE else 1
SERVED_AGAIN_SECONDS = 9.0 if IS_WHOLE else 30.0
"""After a kill. The short selection runs beside whatever else a machine does, so it is no measurement."""
PATIENT = {"CHAT4ALL_DEAD_LETTER_LIMIT": "1000000", "CHAT4ALL_PARK_SECONDS": "3"}

pytestmark = [pytest.mark.timeout(900), pytest.mark.long]


@pytest.mark.parametrize("comes_back", ["at once", "later"])
async def test_workers_killed_at_random_moments_lose_and_double_nothing(
    stack: Stack, workers: Workers, comes_back: str
) -> None:
    async with loaded(stack, conversations=CONVERSATIONS) as load:
        for name in ("one", "two"):
            workers.start(name)
        await warm_up(load)
        longest: list[float] = []
        for _ in range(KILLS):
            load.intended.clear()
            sending = asyncio.create_task(load.run(RATE, 12))
            await asyncio.sleep(random.uniform(0.5, 2.5))
            victim = random.choice(("one", "two"))
            workers.kill(victim)
            await asyncio.sleep(0.5 if comes_back == "at once" else 9)
            workers.start(victim)
            await sending
            await load.check_tables()
            longest.append(worst(load))
        load.check_heard()
        await wait_until_committed(stack)
    print(f"killed, back {comes_back}: longest waits {', '.join(f'{wait:.1f}' for wait in longest)} s")
    assert max(longest) < SERVED_AGAIN_SECONDS


async def test_a_paused_worker_that_wakes_after_its_partitions_moved_changes_nothing(
    stack: Stack, workers: Workers
) -> None:
    pause = 20
    async with loaded(stack, conversations=CONVERSATIONS) as load:
        for name in ("one", "two"):
            workers.start(name)
        await warm_up(load)
        sending = asyncio.create_task(load.run(RATE, pause + 8))
        await asyncio.sleep(2)
        workers.signal("one", signal.SIGSTOP)
        await asyncio.sleep(pause)
        workers.signal("one", signal.SIGCONT)
        await sending
        await load.check_tables()
        load.check_heard()
        await wait_until_committed(stack)
    print(f"paused for {pause} s: longest wait {worst(load):.1f} s")
    assert worst(load) < SERVED_AGAIN_SECONDS


@pytest.mark.parametrize("is_static", [True, False])
async def test_workers_come_and_go_under_load(stack: Stack, workers: Workers, is_static: bool) -> None:
    """1 -> 3 -> 1."""
    async with loaded(stack, conversations=CONVERSATIONS) as load:
        workers.start("one", is_static=is_static)
        await warm_up(load)
        sending = asyncio.create_task(load.run(RATE, 30))
        await asyncio.sleep(1)
        for name in ("two", "three"):
            workers.start(name, is_static=is_static)
        await asyncio.sleep(12)
        statuses = await asyncio.gather(workers.stop("two"), workers.stop("three"))
        await sending
        await load.check_tables()
        load.check_heard()
        await wait_until_committed(stack)
    assert set(statuses) == {0}, "SIGTERM in the middle of whatever they did is a clean end"
    print(f"1 -> 3 -> 1, {'static' if is_static else 'dynamic'}: longest wait {worst(load):.1f} s")


def unreadable(number: int, conversation_ids: list[str]) -> tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]:
    """A record that no conversation can have: key, value, headers."""
    event_id = str(uuid.uuid4()).encode()
    headers = [("id", event_id), ("eventType", b"MessageSent"), ("seq", b"1000000")]
    key = conversation_key(conversation_ids[number % len(conversation_ids)]).encode()
    return [
        (key, b"{}", headers),  # a seq far ahead of everything
        (b"nobody", b"{}", headers),
        (key, b"{}", [("id", event_id), ("eventType", b"MessageSent")]),
        (None, b"\xff", []),
        (conversation_key(str(uuid.uuid4())).encode(), b"{}", headers),  # of a conversation that there is not
        (key, None, headers),
        (key, b"{", [("id", b"1"), ("eventType", b"TitleChanged"), ("seq", b"3")]),
    ][number % 7]


async def send_unreadable(stack: Stack, conversation_ids: list[str], *, count: int, rate: float) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=f"127.0.0.1:{stack.ports.kafka}")
    await producer.start()
    try:
        for number in range(count):
            key, value, headers = unreadable(number, conversation_ids)
            partition = number % CONVERSATION_EVENTS.partitions
            await producer.send_and_wait(CONVERSATION_EVENTS.name, value, key, partition=partition, headers=headers)
            await asyncio.sleep(1 / rate)
    finally:
        await producer.stop()


async def read_dead_letters(stack: Stack, since_ms: int) -> list[tuple[bytes, bytes, str]]:
    """Origin and reason of each dead letter since then."""
    consumer = AIOKafkaConsumer(bootstrap_servers=f"127.0.0.1:{stack.ports.kafka}")
    await consumer.start()
    try:
        partition = TopicPartition(CONVERSATION_EVENTS_DEAD_LETTER.name, 0)
        consumer.assign([partition])
        await consumer.seek_to_beginning()
        end = (await consumer.end_offsets([partition]))[partition]
        letters = []
        while await consumer.position(partition) < end:
            for records in (await consumer.getmany(timeout_ms=500)).values():
                letters += [record for record in records if record.timestamp >= since_ms]
    finally:
        await consumer.stop()
    found = [dict(letter.headers) for letter in letters]
    return [(h["deadLetterPartition"], h["deadLetterOffset"], h["deadLetterReason"].decode()) for h in found]


async def test_unreadable_records_and_damaged_tables_hold_nobody_up(stack: Stack, workers: Workers) -> None:
    """One record in a hundred is poison, and two conversations' tables are overwritten."""
    seconds = 60 if IS_WHOLE else 8
    count = int(RATE / 100 * seconds)
    began_ms = int(time.time() * 1000)
    async with loaded(stack, conversations=CONVERSATIONS) as load:
        workers.start("one", environment=PATIENT)
        workers.start("two", environment=PATIENT)
        await warm_up(load)
        bad, good = load.conversation_ids[: CONVERSATIONS // 5], set(load.conversation_ids[CONVERSATIONS // 5 :])
        sending = asyncio.create_task(load.run(RATE, seconds + 2))
        poisoning = asyncio.create_task(send_unreadable(stack, bad[2:], count=count, rate=RATE / 100))
        await asyncio.sleep(seconds / 2)
        async with connect_redis(stack) as redis:
            for name, key in zip(bad, (timeline_key, participants_key), strict=False):
                await redis.delete(key(name))
                await redis.set(key(name), "what is none of ours")
        await asyncio.gather(sending, poisoning)
        await load.check_tables()
        await wait_until_committed(stack)
        load.check_heard(is_whole=False)
    letters = await read_dead_letters(stack, began_ms)
    assert len(letters) == count, "each of them once"
    assert len({(partition, offset) for partition, offset, _ in letters}) == count
    p99 = load.latencies(good).milliseconds()["p99"]
    print(f"1 % poison: {count} dead letters; the other conversations' p99 {p99:.0f} ms")
    if IS_WHOLE:
        assert p99 < 1000


async def test_an_app_that_reaches_its_limit_of_dead_letters_stops_and_stays_stopped(
    stack: Stack, workers: Workers
) -> None:
    async with loaded(stack, conversations=3) as load:
        before = len(await read_dead_letters(stack, 0))
        limit = {
            "CHAT4ALL_DEAD_LETTER_LIMIT": str(before + 2)
        }  # earlier tests' count, those that have no key by one each
        await send_unreadable(stack, [], count=0, rate=1)
        producer = AIOKafkaProducer(bootstrap_servers=f"127.0.0.1:{stack.ports.kafka}")
        await producer.start()
        for _ in range(before + 5):
            await producer.send_and_wait(CONVERSATION_EVENTS.name, b"{}", b"nobody")
        await producer.stop()
        for attempt in range(2):
            workers.start(f"limited-{attempt}", environment=limit)
            status = await asyncio.to_thread(workers.running.pop(f"limited-{attempt}").wait, 60)
            assert status == 70
            assert "became dead letters within 3600 s, and another one is to be" in workers.log(f"limited-{attempt}")
            if attempt == 0:
                set_aside = await read_dead_letters(stack, 0)
        assert await read_dead_letters(stack, 0) == set_aside, "a restart has set nothing more aside"
        workers.start("unlimited", environment=PATIENT)
        await load.run(30, 1)
        await load.check_tables()
        await wait_until_committed(stack)
