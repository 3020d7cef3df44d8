"""A killed worker's share is served by another one: how late its latest message is. Nobody starts the dead one."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from infra.local.stack import Stack
from schemas.topics import CONVERSATION_EVENTS
from tests.benchmarks import end_to_end
from tests.chat_client import ChatClient, User
from tests.faults.timeline_workers import Workers
from tests.second_worker import have_task_on, second_worker

RATE = 50.0
SECONDS = 12.0
KILL_AFTER_SECONDS = 3.0
JOIN_SECONDS = 60


async def measure(stack: Stack) -> dict[str, Any]:
    """Seconds from the intended start of the message that waited longest to its arrival, for a timeline worker and for
    a Connect worker, each one of two."""
    client = ChatClient(f"http://127.0.0.1:{stack.ports.ingest_api}", f"http://127.0.0.1:{stack.ports.delivery}")
    try:
        alice = await client.register("alice")
        ids = [await client.create_conversation(alice) for _ in range(end_to_end.CONVERSATIONS)]
    finally:
        await client.close()
    return {
        "rate_per_second": RATE,
        "timeline_seconds": await _kill_a_timeline_worker(stack, alice, ids),
        "connect_seconds": await _kill_a_connect_worker(stack, alice, ids),
    }


async def _longest_wait(stack: Stack, user: User, ids: list[str], kill: Callable[[], None]) -> float:
    async def kill_later() -> None:
        await asyncio.sleep(KILL_AFTER_SECONDS)
        kill()

    run, _ = await asyncio.gather(end_to_end.run_at_rate(stack, user, ids, rate=RATE, seconds=SECONDS), kill_later())
    return round(float(run["received_ms"]["max"]) / 1000, 2)


async def _kill_a_timeline_worker(stack: Stack, user: User, ids: list[str]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        workers = Workers(stack, Path(folder))
        try:
            workers.start("timeline-2")
            async with asyncio.timeout(JOIN_SECONDS), httpx.AsyncClient(trust_env=False) as http:
                health = f"http://127.0.0.1:{stack.ports.timeline_metrics}/healthz"
                while _partitions((await http.get(health)).json()) != CONVERSATION_EVENTS.partitions // 2:
                    await asyncio.sleep(0.2)
            await asyncio.sleep(2)  # it has its half then, and reads it
            return await _longest_wait(stack, user, ids, lambda: workers.kill("timeline-2"))
        finally:
            workers.end()


def _partitions(health: dict[str, Any]) -> int:
    return sum(name.startswith(f"{CONVERSATION_EVENTS.name}-") for name in health.get("assignment", ()))


async def _kill_a_connect_worker(stack: Stack, user: User, ids: list[str]) -> float:
    with second_worker(stack) as second:
        await have_task_on(stack, second, second.port)
        return await _longest_wait(stack, user, ids, second.process.kill)
