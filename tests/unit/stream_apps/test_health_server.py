"""The health server: /healthz says what the app says, in the app's own event loop, and /metrics answers beside it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx
from prometheus_client import CollectorRegistry, generate_latest

from infra.telemetry.instruments import make_registry
from stream_apps.base import StreamApp, Watchdog
from stream_apps.health_server import Health, HealthServer
from stream_apps.worker_health import WorkerHealth


@asynccontextmanager
async def serving(server: HealthServer) -> AsyncIterator[httpx.AsyncClient]:
    await server.open()
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", trust_env=False, timeout=10) as http:
            yield http
    finally:
        await server.close()


async def test_it_tells_what_the_app_says_and_its_metrics() -> None:
    said = Health(True, "running", {"lag_records": 3})

    async def ask() -> Health:
        return said

    async with serving(HealthServer(0, make_registry(), ask)) as http:
        healthy = await http.get("/healthz")
        assert (healthy.status_code, healthy.json()) == (200, {"status": "running", "lag_records": 3})
        said = Health(False, "stalled")
        assert (await http.get("/healthz")).status_code == 503
        metrics = await http.get("/metrics")
        assert "process_resident_memory_bytes" in metrics.text
        assert (await http.get("/")).status_code == 404


async def test_an_app_whose_event_loop_is_stuck_is_unhealthy_and_its_metrics_still_answer() -> None:
    async def ask() -> Health:
        return Health(True, "running")

    server = HealthServer(0, make_registry(), ask)
    await server.open()
    try:

        def look() -> tuple[httpx.Response, httpx.Response]:
            with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", trust_env=False, timeout=30) as http:
                return http.get("/healthz"), http.get("/metrics")

        looking = asyncio.create_task(asyncio.to_thread(look))
        await asyncio.sleep(0)
        time.sleep(2.5)  # noqa: ASYNC251 - the loop is stuck
        health, metrics = await looking
    finally:
        await server.close()
    assert (health.status_code, health.json()["status"]) == (503, "stuck")
    assert metrics.status_code == 200


async def test_an_error_of_the_app_is_unhealthy_and_told() -> None:
    async def ask() -> Health:
        raise LookupError("no such thing")

    async with serving(HealthServer(0, CollectorRegistry(), ask)) as http:
        answer = await http.get("/healthz")
        assert (answer.status_code, answer.json()["detail"]) == (503, "LookupError: no such thing")


class Partition:
    topic = "conversation.events"
    partition = 7


class FakeConsumer:
    def __init__(self) -> None:
        self.partition = Partition()
        self._committed_offset: dict[Any, int | None] = {}

    def assignment(self) -> set[Any]:
        return {self.partition}

    def highwater(self, partition: Any) -> int:
        return 10


class FakeApp:
    """As much of a Faust app as its health is told from."""

    class conf:  # noqa: N801 - Faust's name
        id = "chat4all-timeline"

    rebalancing = False
    rebalancing_count = 0

    def __init__(self) -> None:
        self.consumer = FakeConsumer()


async def test_a_worker_is_unhealthy_before_it_has_joined_and_when_it_stalls() -> None:
    now = 0.0
    watchdog = Watchdog(30, clock=lambda: now)
    registry = CollectorRegistry()
    health = WorkerHealth(registry, watchdog)
    assert (await health.ask()).status == "starting"
    app = FakeApp()
    health.watch(cast(StreamApp, app))
    assert (await health.ask()).status == "starting"
    assert generate_latest(registry) == b""

    app.rebalancing, app.rebalancing_count = True, 1
    assert not (await health.ask()).is_healthy
    app.rebalancing = False
    said = await health.ask()
    assert (said.is_healthy, said.status) == (True, "running")
    assert said.facts == {
        "assignment": ["conversation.events-7"],
        "lag_records": 10,
        "seconds_without_progress": 0.0,
    }
    app.consumer._committed_offset[app.consumer.partition] = 4
    metrics = generate_latest(registry).decode()
    assert 'timeline_partition_lag_records{partition="7",topic="conversation.events"} 6.0' in metrics
    app.rebalancing, app.rebalancing_count = True, 2
    assert (await health.ask()).status == "rebalancing"

    now = 16
    stalled = await health.ask()
    assert (stalled.is_healthy, stalled.status) == (False, "stalled")
    watchdog.excuse()
    assert (await health.ask()).is_healthy
