"""Insert -> Kafka: from the intended start of the INSERT to a Kafka consumer, with our connector settings and with
Debezium's defaults, in one run, in the order A B B A."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import psycopg
from aiokafka import AIOKafkaConsumer, TopicPartition
from psycopg_pool import AsyncConnectionPool

from connectors.apply import carry_out, make_plan, wait_until_settled
from connectors.config_file import ConnectorFile, read_connector_file
from connectors.connect import ConnectClient, Deadline
from connectors.declared import Declaration
from connectors.model import Config
from infra.local.stack import Stack
from ingest_api.log_writer import APPEND, NewEntry, append_arguments, new_entry
from ingest_api.telemetry import trace_context
from schemas.envelope import HEADER_EVENT_ID
from schemas.topics import CONVERSATION_EVENTS
from tests.benchmarks.load import Latencies, run_open_loop
from tests.chat_client import ChatClient, User
from tests.conftest import ROOT

OURS = read_connector_file(ROOT / "connectors/configs/outbox.json")
LATENCY_SETTINGS = ("poll.interval.ms", "max.batch.size", "producer.override.linger.ms")
"""What makes our connector quick: without these keys Debezium's and Kafka's defaults hold (500 ms, 2048, 5 ms)."""


@dataclass(frozen=True)
class Way:
    """How an entry comes from an INSERT to a topic: what is executed for it, and where its record is awaited."""

    topic: str
    statement: str
    arguments: Callable[[NewEntry], tuple[str, ...]]


OUR_WAY = Way(CONVERSATION_EVENTS.name, APPEND, lambda entry: append_arguments([entry]))


async def compare(stack: Stack, *, rate: float, seconds: float) -> dict[str, Any]:
    """Percentiles of ours and of the defaults, each measured twice."""
    results: dict[str, list[dict[str, float]]] = {"ours": [], "defaults": []}
    defaults = {key: value for key, value in OURS.config.items() if key not in LATENCY_SETTINGS}
    for name in ("ours", "defaults", "defaults", "ours"):
        await asyncio.to_thread(_configure, stack, OURS.config if name == "ours" else defaults)
        await measure(stack, rate=rate, seconds=min(3, seconds))
        results[name].append(await measure(stack, rate=rate, seconds=seconds))
    await asyncio.to_thread(_configure, stack, OURS.config)
    ours, theirs = (sum(run["p50"] for run in results[name]) / 2 for name in ("ours", "defaults"))
    return {"rate_per_second": rate, **results, "p50_ratio": round(theirs / ours, 1)}


def _configure(stack: Stack, config: Config) -> None:
    declaration = Declaration((ConnectorFile(OURS.name, OURS.connector_class, config),), is_whole=False)
    with httpx.Client(base_url=f"http://127.0.0.1:{stack.ports.connect}", timeout=30) as http:
        deadline = Deadline(60)
        client = ConnectClient([http], deadline)
        plans = make_plan(client, declaration)
        carry_out(client, plans, prune=False)
        wait_until_settled(client, plans, deadline, on_restart=lambda _: None)


async def measure(stack: Stack, *, rate: float, seconds: float, way: Way = OUR_WAY) -> dict[str, float]:
    """Milliseconds from the intended start of an insert to a consumer that reads nothing else."""
    client = ChatClient(f"http://127.0.0.1:{stack.ports.ingest_api}", f"http://127.0.0.1:{stack.ports.delivery}")
    alice = await client.register("alice")
    ids = [await client.create_conversation(alice) for _ in range(20)]
    await client.close()
    login = psycopg.conninfo.make_conninfo(
        host="127.0.0.1",
        port=stack.ports.postgres,
        dbname="chat4all",
        user="chat_api",
        password=stack.secrets.database_api,
    )
    intended_starts: dict[bytes, float] = {}
    latencies = Latencies()
    expected = int(rate * seconds)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=f"127.0.0.1:{stack.ports.kafka}", auto_offset_reset="latest", fetch_max_wait_ms=100
    )
    await consumer.start()
    try:
        consumer.assign([TopicPartition(way.topic, n) for n in range(CONVERSATION_EVENTS.partitions)])
        await consumer.seek_to_end()
        async with AsyncConnectionPool(login, min_size=8, max_size=8, kwargs={"autocommit": True}) as pool:

            async def insert(number: int, intended: float) -> None:
                entry = _entry(alice, ids[number % len(ids)], number)
                intended_starts[entry.event_id.encode()] = intended
                async with pool.connection() as connection:
                    await connection.execute(way.statement, way.arguments(entry), prepare=True)

            receiving = asyncio.create_task(_receive(consumer, expected, intended_starts, latencies))
            await run_open_loop(rate, seconds, insert)
            async with asyncio.timeout(30):
                await receiving
    finally:
        await consumer.stop()
    return latencies.milliseconds()


def _entry(actor: User, conversation_id: str, number: int) -> NewEntry:
    return new_entry(
        event_id=str(uuid.uuid4()),
        type="MessageSent",
        conversation_id=conversation_id,
        actor_id=actor.user_id,
        traceparent=trace_context(None),
        body={"type": "text", "text": f"{number} " + "x" * 180},
    )


async def _receive(
    consumer: AIOKafkaConsumer, expected: int, intended_starts: dict[bytes, float], latencies: Latencies
) -> None:
    while latencies.count < expected:
        batches = await consumer.getmany(timeout_ms=1000)
        now = time.perf_counter()
        for records in batches.values():
            for record in records:
                intended = intended_starts.pop(dict(record.headers)[HEADER_EVENT_ID], None)
                if intended is not None:
                    latencies.record(now - intended)
