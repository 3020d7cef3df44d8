"""The timeline worker with a backlog: records per second, against a hand-written loop, and what memory it takes."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import redis.asyncio as redis_client
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from infra.local.stack import Stack
from schemas.ids import conversation_key
from schemas.redis_keys import HEAD_SEQ, head_key
from schemas.topics import CONVERSATION_EVENTS
from tests.conftest import ROOT

GROUP = "chat4all-timeline"
RECORDS = 1_000_000
CONVERSATIONS = 200
FILLER = "x" * 120
LOOK_SECONDS = 0.1
TIMEOUT_SECONDS = 180


async def compare(stack: Stack) -> dict[str, Any]:
    """Hand-written, worker, worker, hand-written: each applies the same backlog to an empty Redis."""
    bootstrap = f"127.0.0.1:{stack.ports.kafka}"
    partitions = [TopicPartition(CONVERSATION_EVENTS.name, n) for n in range(CONVERSATION_EVENTS.partitions)]
    ids = [str(uuid.uuid4()) for _ in range(CONVERSATIONS)]
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id=GROUP, enable_auto_commit=False)
    await consumer.start()
    redis = redis_client.Redis(port=stack.ports.redis, password=stack.secrets.redis)
    try:
        consumer.assign(partitions)
        first_offsets = await consumer.end_offsets(partitions)
        await _produce(bootstrap, ids)
        by_hand, workers = [], []
        for turn in ("hand", "worker", "worker", "hand"):
            await redis.flushall()
            if turn == "hand":
                by_hand.append(await asyncio.to_thread(_run_by_hand, stack, first_offsets))
                assert await _applied(redis, ids) == RECORDS
            else:
                await _rewind(consumer, first_offsets)
                workers.append(await _run_worker(stack, redis, ids))
    finally:
        await redis.flushall()
        await redis.aclose()
        await consumer.stop()
    return {
        "records": RECORDS,
        "conversations": CONVERSATIONS,
        "by_hand": by_hand,
        "worker": workers,
        "ratio": round(
            sum(run["records_per_second"] for run in workers) / sum(run["records_per_second"] for run in by_hand), 2
        ),
    }


async def _rewind(consumer: AIOKafkaConsumer, first_offsets: dict[TopicPartition, int]) -> None:
    """Makes the group begin there again. Kafka lets nobody from outside do that before the last member is gone, which
    for one with a name is its session timeout after it has ended."""
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while True:
            try:
                await consumer.commit(first_offsets)
            except KafkaError:
                await asyncio.sleep(1)
            else:
                return


async def _produce(bootstrap: str, ids: list[str]) -> None:
    """The backlog: each conversation's messages in seq order, the conversations interleaved. (Their creation is not
    among them, for it costs more, and happens once.)"""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, linger_ms=20, max_batch_size=512 * 1024)
    await producer.start()
    keys = [conversation_key(name).encode() for name in ids]
    # The broker's clients hash keys in pure Python: once per conversation is enough.
    numbers = list(range(CONVERSATION_EVENTS.partitions))
    of_key = [producer._partitioner(key, numbers, numbers) for key in keys]
    sent: list[Any] = []
    actor_id = str(uuid.uuid4())
    for seq in range(1, RECORDS // len(ids) + 1):
        for name, key, partition in zip(ids, keys, of_key, strict=True):
            event_id = f"00000000-0000-4000-8000-{seq:012x}"
            value = (
                f'{{"seq":{seq},"created_at":"2026-01-02T03:04:05.678901Z","event_id":"{event_id}","type":"MessageSent",'
                f'"conversation_id":"{name}","actor_id":"{actor_id}","message_id":"{event_id}",'
                f'"body":{{"type":"text","text":"#{seq} {FILLER}"}}}}'
            )
            headers = [("id", event_id.encode()), ("eventType", b"MessageSent"), ("seq", b"%d" % seq)]
            sent.append(
                await producer.send(CONVERSATION_EVENTS.name, value.encode(), key, partition=partition, headers=headers)
            )
        if len(sent) > 20_000:
            await asyncio.gather(*sent)
            sent.clear()
    await producer.stop()


def _run_by_hand(stack: Stack, first_offsets: dict[TopicPartition, int]) -> dict[str, Any]:
    offsets = json.dumps({str(partition.partition): offset for partition, offset in first_offsets.items()})
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.hand_written", offsets, str(RECORDS)],
        cwd=ROOT,
        env={"PATH": os.defpath, **stack.environment_of("timeline")},
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


async def _run_worker(stack: Stack, redis: redis_client.Redis, ids: list[str]) -> dict[str, Any]:
    """From the first records that it applied to the last."""
    starting = asyncio.create_task(asyncio.to_thread(stack.start_program, "timeline"))
    try:
        began: tuple[float, int] | None = None
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while (applied := await _applied(redis, ids)) < RECORDS:
                if applied and began is None:
                    began = time.perf_counter(), applied
                await asyncio.sleep(LOOK_SECONDS)
        ended = time.perf_counter()
        assert began is not None
        await starting
        status = Path(f"/proc/{stack.process_id('timeline')}/status").read_text()
    finally:
        await asyncio.gather(starting, return_exceptions=True)
        await asyncio.to_thread(stack.stop_program, "timeline")
    return {
        "records_per_second": round((RECORDS - began[1]) / (ended - began[0])),
        "resident_mib": _mib(status, "VmRSS"),
        "peak_resident_mib": _mib(status, "VmHWM"),
    }


async def _applied(redis: redis_client.Redis, ids: list[str]) -> int:
    async with redis.pipeline(transaction=False) as pipeline:
        for name in ids:
            pipeline.hget(head_key(name), HEAD_SEQ)
        return sum(int(seq or 0) for seq in await pipeline.execute())


def _mib(status: str, name: str) -> int:
    found = re.search(rf"(?m)^{name}:\s*(\d+) kB$", status)
    assert found is not None, status
    return int(found[1]) // 1024
