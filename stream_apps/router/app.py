"""Wires the router app."""

from __future__ import annotations

from typing import Any

from infra.telemetry.instruments import make_registry
from infra.telemetry.spans import open_recorder
from schemas.topics import CONVERSATION_EVENTS
from stream_apps.base import StreamApp, Watchdog, add_agent
from stream_apps.chunk_transport import UNHURRIED
from stream_apps.dead_letters import DeadLetters
from stream_apps.health_server import HealthServer
from stream_apps.log_reader import LogReader
from stream_apps.producer import Producer
from stream_apps.router.agents import Router
from stream_apps.settings import StreamSettings
from stream_apps.telemetry import RouterMetrics, SpanMetrics
from stream_apps.tracing import RecordSpans
from stream_apps.worker_health import WorkerHealth


def create_app(settings: StreamSettings) -> StreamApp:
    """The Faust app. Nothing is connected before a worker runs it."""
    registry = make_registry()
    metrics = RouterMetrics(registry)
    recorder = open_recorder(settings.otlp_endpoint, "chat4all-router", SpanMetrics("router", registry))
    log = LogReader(settings.database_arguments() | {"application_name": "chat4all router"}, max_connections=2)
    dead_letters = DeadLetters(settings.kafka_bootstrap, limit=settings.dead_letter_limit)
    producer = Producer(settings.kafka_bootstrap)
    watchdog = Watchdog(settings.watchdog_seconds)
    health = WorkerHealth(registry, watchdog)
    app = StreamApp(
        "router",
        settings,
        parts=[
            HealthServer(settings.metrics_port, registry, health.ask, host=settings.metrics_host),
            log,
            dead_letters,
            producer,
        ],
        metrics=metrics,
        watchdog=watchdog,
        fetching=UNHURRIED,
    )
    health.watch(app)
    app.tell(RecordSpans("router", recorder))
    router = Router(log, producer, dead_letters, metrics)

    async def forget(*_: Any, **__: Any) -> None:
        # Who came and went meanwhile was told to someone else.
        router.directory.forget()

    app.on_partitions_assigned.connect(forget)
    add_agent(app, CONVERSATION_EVENTS, router.route, metrics, watchdog)
    return app
