"""Submit -> received: from the intended start of the HTTP request to the event at an open SSE connection."""

from __future__ import annotations

import asyncio
import json
import re
import time
from typing import Any

import aiohttp

from infra.local.stack import Stack
from tests.benchmarks.cpu import CpuUse
from tests.benchmarks.load import ConnectionPool, Latencies, request_head, run_open_loop
from tests.chat_client import ChatClient, User

CONVERSATIONS = 50
CONNECTIONS = 64
FILLER = "x" * 180
_NUMBER = re.compile(rb'"text":"#(\d+) ')


async def measure_latency(stack: Stack, *, rate: float, seconds: float, warm_up_seconds: float = 5) -> dict[str, Any]:
    """Percentiles of acknowledgement and of delivery at `rate` messages per second over 50 conversations, to one SSE
    client that sees them all. The warm-up is not counted."""
    client = ChatClient(f"http://127.0.0.1:{stack.ports.ingest_api}", f"http://127.0.0.1:{stack.ports.delivery}")
    try:
        alice = await client.register("alice")
        ids = [await client.create_conversation(alice) for _ in range(CONVERSATIONS)]
    finally:
        await client.close()
    if warm_up_seconds:
        await run_at_rate(stack, alice, ids, rate=rate, seconds=warm_up_seconds)
    return await run_at_rate(stack, alice, ids, rate=rate, seconds=seconds)


async def run_at_rate(stack: Stack, user: User, ids: list[str], *, rate: float, seconds: float) -> dict[str, Any]:
    pool = ConnectionPool(stack.ports.ingest_api)
    await pool.open(CONNECTIONS)
    heads = [request_head(f"/v1/conversations/{conversation_id}/messages", user.token) for conversation_id in ids]
    intended_starts: dict[int, float] = {}
    acknowledged, received = Latencies(), Latencies()
    statuses: dict[int, int] = {}

    async def send(number: int, intended: float) -> None:
        intended_starts[number] = intended
        body = json.dumps({"body": {"type": "text", "text": f"#{number} {FILLER}"}}).encode()
        status, _ = await pool.post(heads[number % len(heads)], body)
        acknowledged.record(time.perf_counter() - intended)
        statuses[status] = statuses.get(status, 0) + 1

    expected = int(rate * seconds)
    async with aiohttp.ClientSession() as session:
        ready = asyncio.Event()
        receiving = asyncio.create_task(
            _receive(session, stack.ports.delivery, user, ready, expected, intended_starts, received)
        )
        await asyncio.wait_for(ready.wait(), 10)
        cpu = CpuUse.of(stack)
        generator = await run_open_loop(rate, seconds, send)
        cpu_percent = cpu.percent_since()
        async with asyncio.timeout(60):
            duplicates = await receiving
    pool.close()
    assert statuses == {201: expected}, f"not every message was accepted: {statuses}"
    return {
        "rate_per_second": rate,
        "messages": expected,
        "acknowledged_ms": acknowledged.milliseconds(),
        "received_ms": received.milliseconds(),
        "received_twice": duplicates,
        "cpu_percent": cpu_percent,
        **generator,
    }


async def _receive(  # noqa: PLR0917 - what one receiver needs
    session: aiohttp.ClientSession,
    port: int,
    user: User,
    ready: asyncio.Event,
    expected: int,
    intended_starts: dict[int, float],
    latencies: Latencies,
) -> int:
    """Reads the stream until every message has been seen; the number of those that were seen again."""
    seen: set[int] = set()
    duplicates = 0
    pending = b""
    async with session.get(
        f"http://127.0.0.1:{port}/v1/stream",
        headers=user.headers,
        timeout=aiohttp.ClientTimeout(total=None),
    ) as response:
        response.raise_for_status()
        async for chunk in response.content.iter_any():
            now = time.perf_counter()
            ready.set()
            complete, separator, pending = (pending + chunk).rpartition(b"\n\n")
            for found in _NUMBER.finditer(complete + separator):
                number = int(found[1])
                if number in seen:
                    duplicates += 1
                else:
                    seen.add(number)
                    latencies.record(now - intended_starts[number])
            if len(seen) >= expected:
                return duplicates
    raise AssertionError(f"the stream ended after {len(seen)} of {expected} messages")
