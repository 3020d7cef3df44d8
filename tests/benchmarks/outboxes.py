"""One, two and four outboxes: how fast a backlog reaches Kafka, and how long a record takes at a steady rate. In the
order 1 2 4 4 2 1, in one run."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import psycopg
from aiokafka import AIOKafkaConsumer, TopicPartition
from prometheus_client import CollectorRegistry
from psycopg.rows import TupleRow

from infra.local.stack import Stack
from ingest_api.log_writer import LogWriter
from ingest_api.telemetry import WriterMetrics, trace_context
from schemas.outboxes import Outbox
from schemas.topics import CONVERSATION_EVENTS
from tests.benchmarks import change_data_capture
from tests.benchmarks.log_writer import login, message
from tests.chat_client import ChatClient
from tests.operators import connectors_command, declare_outboxes

COUNTS = (1, 2, 4, 4, 2, 1)
CONVERSATIONS = 200
SENDERS = 256
PARTITIONS = [TopicPartition(CONVERSATION_EVENTS.name, number) for number in range(CONVERSATION_EVENTS.partitions)]


async def compare(stack: Stack, *, backlog: int, rate: float, seconds: float) -> dict[str, Any]:
    """Records per second and milliseconds, by the number of outboxes."""
    runs: list[dict[str, Any]] = []
    await drain(stack, 1, backlog=backlog // 2)  # until the just-in-time compiler has settled
    with tempfile.TemporaryDirectory() as folder:
        for count in COUNTS:
            await asyncio.to_thread(_change_to, stack, Path(folder), count)
            per_second = await drain(stack, count, backlog=backlog)
            milliseconds = await change_data_capture.measure(stack, rate=rate, seconds=seconds)
            runs.append({"outboxes": count, "records_per_second": round(per_second), "milliseconds": milliseconds})
    return {"backlog": backlog, "rate_per_second": rate, "runs": runs}


def _change_to(stack: Stack, folder: Path, count: int) -> None:
    done = connectors_command(stack, "outboxes", "outboxes", str(declare_outboxes(folder, count)), "--apply")
    assert done.returncode == 0, done.stdout + done.stderr


async def drain(stack: Stack, count: int, *, backlog: int) -> float:
    """Records per second from the first to the last of a backlog that was written while the connectors were stopped."""
    await asyncio.to_thread(_set_state, stack, count, "stop")
    consumer = AIOKafkaConsumer(bootstrap_servers=f"127.0.0.1:{stack.ports.kafka}", enable_auto_commit=False)
    await consumer.start()
    try:
        before = sum((await consumer.end_offsets(PARTITIONS)).values())
        await _write(stack, backlog)
        await asyncio.to_thread(_set_state, stack, count, "resume")
        first: float | None = None
        async with asyncio.timeout(120):
            while True:
                arrived = sum((await consumer.end_offsets(PARTITIONS)).values()) - before
                now = time.perf_counter()
                if arrived and first is None:
                    first = now
                if arrived >= backlog and first is not None:
                    return backlog / (now - first)
                await asyncio.sleep(0.02)
    finally:
        await consumer.stop()


def _set_state(stack: Stack, count: int, verb: str) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{stack.ports.connect}/connectors", timeout=30) as http:
        for number in range(count):
            http.put(f"/{Outbox(number).connector}/{verb}").raise_for_status()
        while verb == "stop" and any(http.get(f"/{Outbox(n).connector}/status").json()["tasks"] for n in range(count)):
            time.sleep(0.1)


async def _write(stack: Stack, backlog: int) -> None:
    client = ChatClient(f"http://127.0.0.1:{stack.ports.ingest_api}", f"http://127.0.0.1:{stack.ports.delivery}")
    try:
        alice = await client.register("alice")
        ids = [await client.create_conversation(alice) for _ in range(CONVERSATIONS)]
    finally:
        await client.close()

    async def connect() -> psycopg.AsyncConnection[TupleRow]:
        return await psycopg.AsyncConnection.connect(**login(stack), autocommit=True)

    writer = LogWriter(
        connect,
        connections=2,
        batch_size=256,
        queue_size=4000,
        timeout_seconds=10,
        metrics=WriterMetrics(CollectorRegistry()),
    )
    writer.start()
    left = iter(range(backlog - CONVERSATIONS))  # the conversations' own first entries are in it

    async def keep_sending() -> None:
        for number in left:
            await writer.append(message(alice, ids[number % CONVERSATIONS], trace_context(None)))

    await asyncio.gather(*(keep_sending() for _ in range(SENDERS)))
    await writer.close()
