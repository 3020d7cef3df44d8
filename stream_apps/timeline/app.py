"""Wires the timeline app."""

from __future__ import annotations

from infra.telemetry.instruments import make_registry
from infra.telemetry.spans import open_recorder
from schemas.topics import CONVERSATION_EVENTS, RECEIPT_EVENTS
from stream_apps.base import StreamApp, Watchdog, add_agent, end_because_of, is_passing
from stream_apps.clients import RedisPart, make_redis
from stream_apps.dead_letters import DeadLetters
from stream_apps.health_server import HealthServer
from stream_apps.log_reader import LogReader
from stream_apps.parking import Attendant, ParkingLot
from stream_apps.redis_tables.tables import RedisTables
from stream_apps.settings import StreamSettings
from stream_apps.telemetry import SpanMetrics, TimelineMetrics
from stream_apps.timeline.agents import Receipts, Timeline
from stream_apps.tracing import RecordSpans
from stream_apps.worker_health import WorkerHealth


def create_app(settings: StreamSettings) -> StreamApp:
    """The Faust app. Nothing is connected before a worker runs it."""
    registry = make_registry()
    metrics = TimelineMetrics(registry)
    recorder = open_recorder(settings.otlp_endpoint, "chat4all-timeline", SpanMetrics("timeline", registry))
    redis = make_redis(settings)
    log = LogReader(settings.database_arguments() | {"application_name": "chat4all timeline"}, max_connections=2)
    dead_letters = DeadLetters(settings.kafka_bootstrap, limit=settings.dead_letter_limit)
    watchdog = Watchdog(settings.watchdog_seconds)
    tables = RedisTables(redis)
    lot = ParkingLot(settings.park_seconds, conversations=metrics.parked_conversations, is_passing=is_passing)
    timeline = Timeline(tables, log, dead_letters, lot, metrics)
    receipts = Receipts(tables, log, dead_letters, metrics)
    attendant = Attendant(lot, timeline, excuse=watchdog.excuse, on_error=end_because_of)
    health = WorkerHealth(registry, watchdog)
    server = HealthServer(settings.metrics_port, registry, health.ask, host=settings.metrics_host)
    app = StreamApp(
        "timeline",
        settings,
        parts=[server, RedisPart(redis), log, dead_letters, attendant],
        metrics=metrics,
        watchdog=watchdog,
    )
    health.watch(app)
    app.tell(RecordSpans("timeline", recorder, tells_append=True))
    app.on_partitions_revoked.connect(lambda *_, **__: lot.clear())
    add_agent(app, CONVERSATION_EVENTS, timeline.apply, metrics, watchdog)
    add_agent(app, RECEIPT_EVENTS, receipts.apply, metrics, watchdog)
    return app
