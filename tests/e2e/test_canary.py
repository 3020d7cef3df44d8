"""The canary, end to end: each partition is written to and comes back, a blackout is seen partition by partition, and a
canary that starts again sings in the same conversations."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from chat4all_client import Chat
from infra.local.stack import Stack
from schemas.topics import CONVERSATION_EVENTS
from stream_apps.canary.model import choose_conversations, partition_of
from tests.conftest import ROOT
from tests.integration.servers import free_port

PARTITIONS = list(range(CONVERSATION_EVENTS.partitions))
INTERVAL_SECONDS = 1.0
WITHIN_SECONDS = 60.0


@dataclass
class Bird:
    """A canary of the test's own."""

    port: int
    http: httpx.AsyncClient

    async def health(self) -> dict[str, Any]:
        """What it says; on a machine with much to do also that it had no time to say it."""
        facts: dict[str, Any] = (await self.http.get(f"http://127.0.0.1:{self.port}/healthz")).json()
        return facts

    async def samples(self, name: str) -> dict[str, float]:
        """A metric's values, by partition (or "" if it has none)."""
        text = (await self.http.get(f"http://127.0.0.1:{self.port}/metrics")).text
        return {
            sample.labels.get("partition", ""): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name
        }

    async def until(self, is_so: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Its health, once it is so."""
        facts: dict[str, Any] = {}
        try:
            async with asyncio.timeout(WITHIN_SECONDS):
                while True:
                    facts = await self.health()
                    if "dark_partitions" in facts and is_so(facts):
                        return facts
                    await asyncio.sleep(0.1)
        except TimeoutError as error:
            raise AssertionError(f"at last: {facts}") from error


@asynccontextmanager
async def canary(stack: Stack, username: str) -> AsyncIterator[Bird]:
    port = free_port()
    environment = {
        **os.environ,
        **stack.environment_of("canary"),
        "CHAT4ALL_CANARY_USERNAME": username,
        "CHAT4ALL_CANARY_INTERVAL_SECONDS": str(INTERVAL_SECONDS),
        "CHAT4ALL_CANARY_LOST_SECONDS": "4",
        "CHAT4ALL_METRICS_PORT": str(port),
    }
    process = subprocess.Popen([sys.executable, "-m", "stream_apps.canary", "run"], cwd=ROOT, env=environment)
    try:
        async with httpx.AsyncClient(trust_env=False) as http:
            bird = Bird(port, http)
            async with asyncio.timeout(WITHIN_SECONDS):
                while True:
                    assert process.poll() is None
                    try:
                        await bird.health()
                        break
                    except httpx.TransportError:
                        await asyncio.sleep(0.1)
            yield bird
        process.terminate()
        assert await asyncio.to_thread(process.wait, 15) == 0
    finally:
        process.kill()
        process.wait()


async def fresh_since(bird: Bird, since: float) -> None:
    """Returns when a message has come back in every partition since then."""
    async with asyncio.timeout(WITHIN_SECONDS):
        while min((await bird.samples("canary_last_delivered_timestamp_seconds")).values()) <= since:
            await asyncio.sleep(0.2)


async def test_each_partition_is_heard_of_and_a_blackout_is_seen_partition_by_partition(stack: Stack) -> None:
    username = f"canary-{uuid.uuid4().hex[:12]}"
    async with canary(stack, username) as bird:
        await bird.until(lambda facts: facts["status"] == "running")
        began = time.time()
        await fresh_since(bird, began)
        assert sorted(map(int, await bird.samples("canary_messages_total"))) == PARTITIONS
        assert set((await bird.samples("canary_lost_total")).values()) == {0.0}
        assert (await bird.samples("canary_delivery_seconds_count"))[""] >= len(PARTITIONS)

        stack.stop_program("timeline")
        try:
            facts = await bird.until(lambda facts: len(facts["dark_partitions"]) == len(PARTITIONS))
            assert facts["status"] == "dark"
            async with asyncio.timeout(WITHIN_SECONDS):
                while min((await bird.samples("canary_lost_total")).values()) < 1:
                    await asyncio.sleep(0.2)
        finally:
            stack.start_program("timeline")
        await bird.until(lambda facts: facts["dark_partitions"] == [] and facts["waiting_messages"] < len(PARTITIONS))
        assert (await bird.samples("canary_late_total"))[""] >= len(PARTITIONS)

    password = stack.environment_of("canary")["CHAT4ALL_CANARY_PASSWORD"]
    async with canary(stack, username) as again, Chat(*urls(stack)) as chat:
        await again.until(lambda facts: facts["status"] == "running")
        await fresh_since(again, time.time())
        await chat.login(username, password)
        found = {line["conversation_id"]: line["title"] async for line in chat.inbox()}
    assert set(found) == set(choose_conversations(chat.user_id, len(PARTITIONS)))
    assert {partition_of(name, len(PARTITIONS)): title for name, title in found.items()} == {
        partition: f"canary of partition {partition}" for partition in PARTITIONS
    }


def urls(stack: Stack) -> tuple[str, str]:
    return f"http://127.0.0.1:{stack.ports.ingest_api}", f"http://127.0.0.1:{stack.ports.delivery}"
