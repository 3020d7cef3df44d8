"""Wires the timeline app."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, start_http_server
from redis.asyncio import Redis

from schemas.topics import CONVERSATION_EVENTS, RECEIPT_EVENTS
from stream_apps.base import StreamApp, Watchdog, add_agent, end_because_of, is_passing
from stream_apps.clients import make_redis
from stream_apps.dead_letters import DeadLetters
from stream_apps.log_reader import LogReader
from stream_apps.parking import Attendant, ParkingLot
from stream_apps.redis_tables.tables import RedisTables
from stream_apps.settings import StreamSettings
from stream_apps.telemetry import TimelineMetrics
from stream_apps.timeline.agents import Receipts, Timeline


class MetricsServer:
    """Serves the registry on loopback, on a thread of its own: it answers while the app is busy."""

    def __init__(self, port: int, registry: CollectorRegistry) -> None:
        self._port = port
        self._registry = registry

    async def open(self) -> None:
        self._server, self._thread = start_http_server(self._port, addr="127.0.0.1", registry=self._registry)

    async def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class RedisPart:
    """Closes the client; it connects by itself."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def open(self) -> None:
        """Nothing: the client connects when it is first used."""

    async def close(self) -> None:
        await self._redis.aclose()


def create_app(settings: StreamSettings) -> StreamApp:
    """The Faust app. Nothing is connected before a worker runs it."""
    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    metrics = TimelineMetrics(registry)
    redis = make_redis(settings)
    log = LogReader(settings.database_arguments() | {"application_name": "chat4all timeline"}, max_connections=2)
    dead_letters = DeadLetters(settings.kafka_bootstrap, limit=settings.dead_letter_limit)
    watchdog = Watchdog(settings.watchdog_seconds)
    tables = RedisTables(redis)
    lot = ParkingLot(settings.park_seconds, conversations=metrics.parked_conversations, is_passing=is_passing)
    timeline = Timeline(tables, log, dead_letters, lot, metrics)
    receipts = Receipts(tables, log, dead_letters, metrics)
    attendant = Attendant(lot, timeline, excuse=watchdog.excuse, on_error=end_because_of)
    app = StreamApp(
        "timeline",
        settings,
        parts=[MetricsServer(settings.metrics_port, registry), RedisPart(redis), log, dead_letters, attendant],
        metrics=metrics,
        watchdog=watchdog,
    )
    app.on_partitions_revoked.connect(lambda *_, **__: lot.clear())
    add_agent(app, CONVERSATION_EVENTS, timeline.apply, metrics, watchdog)
    add_agent(app, RECEIPT_EVENTS, receipts.apply, metrics, watchdog)
    return app
