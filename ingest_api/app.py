"""Wires the ingest API: the one place that knows all its parts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace

import psycopg
from fastapi import FastAPI
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from psycopg.rows import TupleRow

from ingest_api import health
from ingest_api.admission.address_gate import AddressGate
from ingest_api.admission.doors import open_doors
from ingest_api.admission.gate import Gate
from ingest_api.admission.turns import TurnMetrics, Turns
from ingest_api.conversations.routes import router as conversations_router
from ingest_api.database import create_engine
from ingest_api.dispatch import CommandDispatch
from ingest_api.errors import register_error_handlers
from ingest_api.group_commit import GroupCommit, Limits
from ingest_api.log_writer import CHANGE_CONVERSATIONS, LogWriter
from ingest_api.messages.routes import batch_router
from ingest_api.messages.routes import router as messages_router
from ingest_api.middleware import BodyLimit
from ingest_api.receipts.commands import ADVANCE_RECEIPTS
from ingest_api.receipts.routes import router as receipts_router
from ingest_api.request_context import RequestContexts
from ingest_api.security.authenticator import Authenticator
from ingest_api.security.authorization_server import AuthorizationServer
from ingest_api.security.declarations import check_declarations
from ingest_api.security.events import log_security_event
from ingest_api.security.external_issuers import ExternalIssuer
from ingest_api.security.headers import SecurityHeaders
from ingest_api.security.passwords import Passwords
from ingest_api.security.routes import router as security_router
from ingest_api.settings import Settings
from ingest_api.state import State
from ingest_api.telemetry import HttpMetrics, WriterMetrics
from ingest_api.users.routes import router as users_router
from schemas.key_files import KeyFile
from schemas.tokens import TokenVerifier

PUBLIC_ROUTES = frozenset(
    {
        ("POST", "/v1/users"),
        ("POST", "/oauth/token"),
        ("POST", "/oauth/revoke"),
        ("GET", "/.well-known/jwks.json"),
        ("GET", "/.well-known/oauth-authorization-server"),
        ("GET", "/healthz"),
        ("GET", "/readyz"),
        ("GET", "/metrics"),
    }
)
"""What is served without a token, beside the descriptions of this API. Every other route asks for a scope."""


def create_app(settings: Settings) -> FastAPI:
    """The ASGI application. It connects when it starts, and finishes what it has accepted when it stops."""
    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)

    doors = open_doors(settings, registry)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with ThreadPoolExecutor(settings.password_threads, thread_name_prefix="passwords") as executor:
            chat = _assemble(settings, registry, executor, doors.gate)
            app.state.chat = chat
            writers = (chat.writer, chat.changes, chat.receipts)
            for writer in writers:
                writer.start()
            doors.start(lambda: max(writer.queue_share for writer in writers))
            try:
                yield
            finally:
                await doors.close()
                for writer in writers:
                    await writer.close()
                await chat.authenticator.close()
                await chat.engine.dispose()

    app = FastAPI(
        title="Chat4All ingest API",
        summary="Everything that a client can change.",
        version="0.1.0",
        lifespan=lifespan,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False, "operation_spans": False},
    )
    # Routes are tried in this order: the busiest first.
    routers = (
        messages_router,
        batch_router,
        receipts_router,
        conversations_router,
        users_router,
        security_router,
        health.router,
    )
    # The last one added is the first one called.
    app.state.gate = doors.gate
    app.add_middleware(
        CommandDispatch,
        routes=[route for router in routers for route in router.routes],
        turns=Turns(
            limit=settings.commands_served,
            most_waiting=settings.commands_waiting,
            patience_seconds=settings.command_patience_seconds,
            metrics=TurnMetrics(registry),
        ),
    )
    app.add_middleware(AddressGate, gate=doors.gate, trusted=settings.trusted_proxies)
    app.add_middleware(BodyLimit)
    app.add_middleware(
        RequestContexts, gate=doors.gate, metrics=HttpMetrics(registry), log_every=settings.log_every_request
    )
    app.add_middleware(SecurityHeaders)
    register_error_handlers(app)
    check_declarations(routers, PUBLIC_ROUTES)
    for router in routers:
        app.include_router(router)
    return app


def _assemble(settings: Settings, registry: CollectorRegistry, executor: ThreadPoolExecutor, gate: Gate) -> State:
    engine = create_engine(settings)
    keys = KeyFile(settings.signing_key_file)
    passwords = Passwords(executor, queue_size=settings.password_queue_size)
    verifier = TokenVerifier(keys, issuer=settings.issuer)
    issuers = [ExternalIssuer(trusted) for trusted in settings.trusted_issuers]

    async def connect() -> psycopg.AsyncConnection[TupleRow]:
        return await psycopg.AsyncConnection.connect(**settings.connection_arguments(), autocommit=True)

    limits = Limits(
        connections=1,
        batch_size=settings.writer_batch_size,
        queue_size=settings.writer_queue_size,
        timeout_seconds=settings.writer_timeout_seconds,
    )
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
        changes=GroupCommit(connect, CHANGE_CONVERSATIONS, replace(limits, batch_size=16)),
        receipts=GroupCommit(connect, ADVANCE_RECEIPTS, limits),
        passwords=passwords,
        authorization_server=AuthorizationServer(
            engine, passwords, log_security_event, issuer=settings.issuer, keys=keys
        ),
        authenticator=Authenticator(verifier, engine, issuers, log_security_event),
        verifier=verifier,
        keys=keys,
        registry=registry,
        issuer=settings.issuer,
        gate=gate,
    )
