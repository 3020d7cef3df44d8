"""Wires the ingest API: the one place that knows all its parts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import psycopg
from fastapi import FastAPI
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from psycopg.rows import TupleRow

from ingest_api import health
from ingest_api.admission.address_gate import AddressGate
from ingest_api.admission.doors import open_doors
from ingest_api.admission.gate import Gate
from ingest_api.admission.ladder import Overloaded
from ingest_api.conversations.routes import router as conversations_router
from ingest_api.database import create_engine
from ingest_api.errors import problems, register_error_handlers
from ingest_api.limits.limiter import RateLimited
from ingest_api.log_writer import LogWriter
from ingest_api.messages.routes import router as messages_router
from ingest_api.middleware import BodyLimit
from ingest_api.request_context import RequestContexts
from ingest_api.security.authorization_server import AuthorizationServer
from ingest_api.security.passwords import Passwords
from ingest_api.security.routes import router as security_router
from ingest_api.settings import Settings
from ingest_api.signing_keys import read_key_set
from ingest_api.state import State
from ingest_api.telemetry import HttpMetrics, WriterMetrics
from ingest_api.users.routes import router as users_router
from schemas.tokens import TokenVerifier


def create_app(settings: Settings) -> FastAPI:
    """The ASGI application. It connects when it starts, and finishes what it has accepted when it stops."""
    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)

    doors = open_doors(settings, registry)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with ThreadPoolExecutor(settings.password_threads, thread_name_prefix="passwords") as executor:
            app.state.chat = _assemble(settings, registry, executor, doors.gate)
            app.state.chat.writer.start()
            doors.start(lambda: app.state.chat.writer.queue_share)
            try:
                yield
            finally:
                await doors.close()
                await app.state.chat.writer.close()
                await app.state.chat.engine.dispose()

    app = FastAPI(
        title="Chat4All ingest API",
        summary="Everything that a client can change.",
        version="0.1.0",
        lifespan=lifespan,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False, "operation_spans": False},
    )
    # The last one added is the first one called.
    app.state.gate = doors.gate
    app.add_middleware(AddressGate, gate=doors.gate, trusted=settings.trusted_proxies)
    app.add_middleware(BodyLimit)
    app.add_middleware(
        RequestContexts, gate=doors.gate, metrics=HttpMetrics(registry), log_every=settings.log_every_request
    )
    register_error_handlers(app)
    # Routes are tried in this order: the busiest first.
    for router in (messages_router, conversations_router, users_router, security_router):
        app.include_router(router, responses=problems(RateLimited, Overloaded))
    app.include_router(health.router)
    return app


def _assemble(settings: Settings, registry: CollectorRegistry, executor: ThreadPoolExecutor, gate: Gate) -> State:
    engine = create_engine(settings)
    keys = read_key_set(settings.signing_key_file)
    passwords = Passwords(executor)

    async def connect() -> psycopg.AsyncConnection[TupleRow]:
        return await psycopg.AsyncConnection.connect(**settings.connection_arguments(), autocommit=True)

    return State(
        engine=engine,
        writer=LogWriter(
            connect,
            connections=settings.writer_connections,
            batch_size=settings.writer_batch_size,
            queue_size=settings.writer_queue_size,
            timeout_seconds=settings.writer_timeout_seconds,
            metrics=WriterMetrics(registry),
        ),
        passwords=passwords,
        authorization_server=AuthorizationServer(engine, passwords, executor, issuer=settings.issuer, keys=keys),
        verifier=TokenVerifier(keys, issuer=settings.issuer),
        keys=keys,
        registry=registry,
        issuer=settings.issuer,
        gate=gate,
    )
