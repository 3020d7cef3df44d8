"""The API over HTTP: how much one process takes, how fast it answers, and what becomes of both when four times as much
comes in as it can take."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from infra.local.stack import Stack
from tests.benchmarks.load import ConnectionPool, Latencies, request_head, run_open_loop
from tests.chat_client import ChatClient

CONVERSATIONS = 200
CONNECTIONS = 64
BATCH_CONNECTIONS = 8
BATCH_SIZE = 100
OVERLOAD = 4
OVERLOAD_CONNECTIONS = 2000
BODY = json.dumps({"body": {"type": "text", "text": "x" * 180}}).encode()


@dataclass
class Target:
    """One API, a user, conversations and connections."""

    pool: ConnectionPool
    heads: list[bytes]
    batch_head: bytes
    ids: list[str]

    async def post(self, number: int) -> int:
        """Sends one message; the status."""
        status, _ = await self.pool.post(self.heads[number % CONVERSATIONS], BODY)
        return status

    async def post_batch(self, number: int) -> int:
        """Sends a batch; how many messages of it were accepted."""
        text = {"type": "text", "text": "x" * 180}
        messages = [
            {"conversation_id": self.ids[(number * BATCH_SIZE + place) % CONVERSATIONS], "body": text}
            for place in range(BATCH_SIZE)
        ]
        status, answer = await self.pool.post(self.batch_head, json.dumps({"messages": messages}).encode())
        return answer.count(b'"status":201') if status == 200 else 0


@asynccontextmanager
async def target(stack: Stack, connections: int) -> AsyncIterator[Target]:
    """The stack's API."""
    client = ChatClient(f"http://127.0.0.1:{stack.ports.ingest_api}", f"http://127.0.0.1:{stack.ports.delivery}")
    try:
        alice = await client.register("alice")
        ids = [await client.create_conversation(alice) for _ in range(CONVERSATIONS)]
    finally:
        await client.close()
    pool = ConnectionPool(stack.ports.ingest_api)
    await pool.open(connections)
    heads = [request_head(f"/v1/conversations/{conversation_id}/messages", alice.token) for conversation_id in ids]
    try:
        yield Target(pool, heads, request_head("/v1/messages/batch", alice.token), ids)
    finally:
        pool.close()


async def measure_throughput(stack: Stack, *, seconds: float, connections: int = CONNECTIONS) -> dict[str, Any]:
    """Single posts per second that one API process accepts, in a closed loop of `connections` senders."""
    latencies = Latencies()
    async with target(stack, connections) as api:
        end = time.perf_counter() + seconds

        async def keep_sending(number: int) -> int:
            accepted = 0
            while (started := time.perf_counter()) < end:
                accepted += await api.post(number) == 201
                latencies.record(time.perf_counter() - started)
            return accepted

        accepted = sum(await asyncio.gather(*(keep_sending(number) for number in range(connections))))
    return {
        "accepted_per_second": round(accepted / seconds),
        "connections": connections,
        "acknowledged_ms": latencies.milliseconds(),
    }


async def measure_batches(stack: Stack, *, seconds: float) -> dict[str, Any]:
    """Messages per second in batches of 100, in a closed loop of eight senders."""
    latencies = Latencies()
    async with target(stack, BATCH_CONNECTIONS) as api:
        end = time.perf_counter() + seconds

        async def keep_sending(number: int) -> int:
            accepted = 0
            while (started := time.perf_counter()) < end:
                accepted += await api.post_batch(number)
                latencies.record(time.perf_counter() - started)
                number += BATCH_CONNECTIONS
            return accepted

        accepted = sum(await asyncio.gather(*(keep_sending(number) for number in range(BATCH_CONNECTIONS))))
    return {
        "messages_per_second": round(accepted / seconds),
        "connections": BATCH_CONNECTIONS,
        "batch_size": BATCH_SIZE,
        "acknowledged_ms": latencies.milliseconds(),
    }


async def measure_open_loop(
    stack: Stack, *, rate: float, seconds: float, connections: int = CONNECTIONS
) -> dict[str, Any]:
    """What becomes of `rate` single posts per second. A post for which no connection is free counts as turned away.
    Who was held back while others were served is let in when nobody new comes, which is when the load ends: what is
    accepted after that is also told apart."""
    accepted, under_load = Latencies(), Latencies()
    outcomes: Counter[str] = Counter()
    async with target(stack, connections) as api:

        async def send(number: int, intended: float) -> None:
            if not api.pool.free:
                outcomes["no connection"] += 1
                return
            status = await api.post(number)
            outcomes[str(status)] += 1
            if status == 201:
                answered = time.perf_counter()
                accepted.record(answered - intended)
                if answered < intended + seconds - number / rate:
                    under_load.record(answered - intended)

        generator = await run_open_loop(rate, seconds, send)
    return {
        "rate_per_second": round(rate),
        "accepted_per_second": round(under_load.count / seconds),
        "outcomes": dict(outcomes),
        "accepted_ms": accepted.milliseconds(),
        "accepted_under_load_ms": under_load.milliseconds(),
        "accepted_after_the_load": accepted.count - under_load.count,
        **generator,
    }


async def measure_overload(stack: Stack, *, peak: float, seconds: float) -> dict[str, Any]:
    """A quarter of the peak rate, then four times the peak rate."""
    return {
        "peak_per_second": round(peak),
        "unloaded": await measure_open_loop(stack, rate=peak / 4, seconds=min(15.0, seconds)),
        "overloaded": await measure_open_loop(
            stack, rate=peak * OVERLOAD, seconds=seconds, connections=OVERLOAD_CONNECTIONS
        ),
    }
