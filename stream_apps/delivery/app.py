"""Wires delivery: the one place that knows all its parts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from infra.telemetry.instruments import make_registry
from infra.telemetry.spans import Recorder, open_recorder
from schemas.key_files import KeyFile
from schemas.tokens import TokenVerifier
from stream_apps.breaker import Breaker
from stream_apps.delivery import deliveries, health, hops, part_routes, routes, socket_routes, stream_routes
from stream_apps.delivery.console.assets import read_assets
from stream_apps.delivery.console.routes import make_router as make_console_router
from stream_apps.delivery.errors import register_error_handlers
from stream_apps.delivery.live.bases import Bases
from stream_apps.delivery.live.client import ClientLimits
from stream_apps.delivery.live.hub import Hub, RedisAddress
from stream_apps.delivery.live.presence import Presence
from stream_apps.delivery.live.session import SessionParts
from stream_apps.delivery.live.streams import Streams
from stream_apps.delivery.parts import Parts
from stream_apps.delivery.reads import Reads
from stream_apps.delivery.settings import Settings
from stream_apps.delivery.state import State
from stream_apps.delivery.tables import Tables
from stream_apps.delivery.telemetry import HttpMetrics, ReadMetrics, RequestMetrics, StreamMetrics
from stream_apps.log_reader import LogReader
from stream_apps.telemetry import SpanMetrics


def create_app(settings: Settings) -> FastAPI:
    """The ASGI application. It starts whether or not Redis and Postgres are there. Raises OSError, ValueError if the
    key file or the console's files cannot be read."""
    registry = make_registry()
    recorder = open_recorder(settings.otlp_endpoint, "chat4all-delivery", SpanMetrics("delivery", registry))
    parts = _Parts(
        settings=settings,
        registry=registry,
        keys=KeyFile(settings.jwks_file),
        read_metrics=ReadMetrics(registry),
        stream_metrics=StreamMetrics(registry),
        recorder=recorder,
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        log = LogReader(
            settings.connection_arguments(),
            max_connections=settings.database_connections,
            timeout_seconds=settings.database_timeout_seconds,
        )
        breaker = Breaker(retry_seconds=settings.redis_retry_seconds)
        hub = Hub(
            RedisAddress(settings.redis_host, settings.redis_port, settings.redis_password.get_secret_value()),
            log,
            timeout_seconds=settings.redis_timeout_seconds,
            breaker=breaker,
            metrics=parts.stream_metrics,
            recorder=recorder,
        )
        async with _create_redis(settings) as redis, log:
            tables = Tables(redis, breaker=breaker, metrics=parts.read_metrics)
            app.state.delivery = state = _assemble(parts, tables, log, hub)
            hub.start()
            state.presence.start()
            state.streams.start()
            try:
                yield
            finally:
                await state.streams.close()
                await state.parts.close()
                await state.presence.close()
                await hub.close()
                if recorder is not None:
                    await asyncio.to_thread(recorder.close)

    app = FastAPI(
        title="Chat4All delivery",
        summary="Everything that a client can read, once or live.",
        version="0.1.0",
        lifespan=lifespan,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False, "operation_spans": False},
    )
    app.add_middleware(RequestMetrics, metrics=HttpMetrics(registry))
    register_error_handlers(app)
    for part in (routes, deliveries, hops, stream_routes, socket_routes, part_routes, health):
        app.include_router(part.router)
    app.include_router(make_console_router(read_assets()))
    app.router.routes.append(socket_routes.route)
    return app


@dataclass(frozen=True, slots=True)
class _Parts:
    settings: Settings
    registry: CollectorRegistry
    keys: KeyFile
    read_metrics: ReadMetrics
    stream_metrics: StreamMetrics
    recorder: Recorder | None


def _create_redis(settings: Settings) -> Redis:
    """A client that gives up soon and tries once: Postgres can answer too."""
    return Redis(
        host=settings.redis_host,
        port=settings.redis_port,
        password=settings.redis_password.get_secret_value() or None,
        socket_timeout=settings.redis_timeout_seconds,
        socket_connect_timeout=settings.redis_timeout_seconds,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
    )


def _assemble(parts: _Parts, tables: Tables, log: LogReader, hub: Hub) -> State:
    settings = parts.settings
    reads = Reads(tables, log, parts.read_metrics)
    session_parts = SessionParts(
        hub=hub,
        reads=reads,
        bases=Bases(tables, lifetime_seconds=settings.cursor_lifetime_seconds),
        metrics=parts.stream_metrics,
        cursor_secret=settings.cursor_secret.get_secret_value(),
        proof_seconds=settings.stream_proof_seconds,
        recorder=parts.recorder,
    )
    limits = ClientLimits(
        queue_events=settings.stream_queue_events,
        queue_bytes=settings.stream_queue_bytes,
        heartbeat_seconds=settings.stream_comment_seconds,
    )
    presence = Presence(tables, reads)
    return State(
        tables=tables,
        log=log,
        reads=reads,
        streams=Streams(session_parts, limits, presence),
        verifier=TokenVerifier(parts.keys, issuer=settings.issuer),
        presence=presence,
        parts=Parts(tables, log, settings.parts),
        registry=parts.registry,
        allowed_origins=frozenset(settings.allowed_origins),
        heartbeat_seconds=settings.stream_comment_seconds,
    )
