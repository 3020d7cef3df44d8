"""Submit -> received: from the intended start of the HTTP request to the event at an open SSE connection."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from infra.local.stack import Stack
from tests.benchmarks.cpu import CpuUse
from tests.benchmarks.load import ConnectionPool, Latencies, request_head, run_open_loop
from tests.chat_client import ChatClient, User

CONVERSATIONS = 50
CONNECTIONS = 64
FILLER = "x" * 180
ARRIVAL_SECONDS = 120
_NUMBER = re.compile(rb'"text":"#(\d+) ')


async def measure_latency(
    stack: Stack, *, rate: float, seconds: float, warm_up_seconds: float = 5, via_gateway: bool = False
) -> dict[str, Any]:
    """Percentiles of acknowledgement and of delivery at `rate` messages per second over 50 conversations, to one SSE
    client that sees them all. The warm-up is not counted. `via_gateway`: senders and receiver go through the gateway
    instead of to the programs' own ports."""
    client = ChatClient(f"http://127.0.0.1:{stack.ports.ingest_api}", f"http://127.0.0.1:{stack.ports.delivery}")
    try:
        alice = await client.register("alice")
        ids = [await client.create_conversation(alice) for _ in range(CONVERSATIONS)]
    finally:
        await client.close()
    if warm_up_seconds:
        await run_at_rate(stack, alice, ids, rate=rate, seconds=warm_up_seconds, via_gateway=via_gateway)
    return await run_at_rate(stack, alice, ids, rate=rate, seconds=seconds, via_gateway=via_gateway)


async def run_at_rate(
    stack: Stack, user: User, ids: list[str], *, rate: float, seconds: float, via_gateway: bool = False
) -> dict[str, Any]:
    """The same without any preparation. What is not accepted is counted by what came instead of 201; what is accepted
    and does not arrive within two minutes is a broken run (TimeoutError)."""
    pool = ConnectionPool(stack.ports.gateway if via_gateway else stack.ports.ingest_api)
    await pool.open(CONNECTIONS)
    read_port = stack.ports.gateway if via_gateway else stack.ports.delivery
    heads = [request_head(f"/v1/conversations/{conversation_id}/messages", user.token) for conversation_id in ids]
    acknowledged = Latencies()
    arrivals = Arrivals()
    accepted: set[int] = set()
    refused: Counter[str] = Counter()

    async def send(number: int, intended: float) -> None:
        arrivals.intended_starts[number] = intended
        body = json.dumps({"body": {"type": "text", "text": f"#{number} {FILLER}"}}).encode()
        status, _ = await pool.post(heads[number % len(heads)], body)
        if status == 201:
            accepted.add(number)
            acknowledged.record(time.perf_counter() - intended)
        else:
            refused[str(status)] += 1

    async with aiohttp.ClientSession() as session:
        receiving = asyncio.create_task(_receive(session, read_port, user, arrivals))
        try:
            await asyncio.wait_for(arrivals.ready.wait(), 10)
            cpu = CpuUse.of(stack)
            generator = await run_open_loop(rate, seconds, send)
            cpu_percent = await cpu.percent_since()
            async with asyncio.timeout(ARRIVAL_SECONDS):
                while not accepted <= arrivals.seen and not receiving.done():
                    await asyncio.sleep(0.02)
            assert not receiving.done(), "the stream ended before every message had come"
        finally:
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)
            pool.close()
    return {
        "rate_per_second": rate,
        "messages": len(accepted),
        "not_accepted": dict(refused),
        "acknowledged_ms": acknowledged.milliseconds(),
        "received_ms": arrivals.latencies.milliseconds(),
        "received_twice": arrivals.duplicates,
        "cpu_percent": cpu_percent,
        **generator,
    }


@dataclass
class Arrivals:
    """What a client has seen of the numbered messages."""

    intended_starts: dict[int, float] = field(default_factory=dict)
    latencies: Latencies = field(default_factory=Latencies)
    seen: set[int] = field(default_factory=set)
    duplicates: int = 0
    ready: asyncio.Event = field(default_factory=asyncio.Event)

    def note(self, number: int, now: float) -> None:
        if number in self.seen:
            self.duplicates += 1
        else:
            self.seen.add(number)
            self.latencies.record(now - self.intended_starts[number])


async def _receive(session: aiohttp.ClientSession, port: int, user: User, arrivals: Arrivals) -> None:
    """Reads the stream until it is cancelled."""
    pending = b""
    async with session.get(
        f"http://127.0.0.1:{port}/v1/stream",
        headers=user.headers,
        timeout=aiohttp.ClientTimeout(total=None),
    ) as response:
        response.raise_for_status()
        async for chunk in response.content.iter_any():
            now = time.perf_counter()
            arrivals.ready.set()
            complete, separator, pending = (pending + chunk).rpartition(b"\n\n")
            for found in _NUMBER.finditer(complete + separator):
                arrivals.note(int(found[1]), now)
