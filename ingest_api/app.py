"""Wires the ingest API: the one place that knows all its parts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from infra.telemetry.instruments import make_registry
from infra.telemetry.spans import exporting, open_recorder
from ingest_api import health
from ingest_api.admission.address_gate import AddressGate
from ingest_api.admission.crowd import Crowd
from ingest_api.admission.doors import open_doors
from ingest_api.admission.gate import Gate
from ingest_api.admission.turns import TurnMetrics, Turns
from ingest_api.audit.heads import HeadExport, read_head
from ingest_api.audit.routes import router as audit_router
from ingest_api.audit.trail import AuditTrail
from ingest_api.channels.routes import router as channels_router
from ingest_api.conversations.routes import router as conversations_router
from ingest_api.database import connector, create_engine
from ingest_api.dispatch import CommandDispatch
from ingest_api.errors import register_error_handlers
from ingest_api.group_commit import GroupCommit, Limits, trace_writes
from ingest_api.http_protocol import DoorProtocol
from ingest_api.log_writer import CHANGE_CONVERSATIONS, LogWriter
from ingest_api.messages.routes import batch_router
from ingest_api.messages.routes import router as messages_router
from ingest_api.middleware import BodyLimit
from ingest_api.receipts.commands import ADVANCE_RECEIPTS
from ingest_api.receipts.routes import router as receipts_router
from ingest_api.request_context import RequestContexts, describe_request
from ingest_api.security.authenticator import Authenticator
from ingest_api.security.authorization_server import AuthorizationServer
from ingest_api.security.declarations import check_declarations
from ingest_api.security.events import SecurityEvent
from ingest_api.security.external_issuers import ExternalIssuer
from ingest_api.security.headers import SecurityHeaders
from ingest_api.security.passwords import Passwords
from ingest_api.security.routes import router as security_router
from ingest_api.settings import Settings
from ingest_api.state import State
from ingest_api.telemetry import HttpMetrics, SpanMetrics, WriterMetrics
from ingest_api.tracing import Tracing
from ingest_api.users.routes import lookup_router
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
    registry = make_registry()
    doors = open_doors(settings, registry)
    recorder = open_recorder(settings.otlp_endpoint, "chat4all-ingest-api", SpanMetrics(registry))
    limits = Limits(
        connections=1,
        batch_size=settings.writer_batch_size,
        queue_size=settings.writer_queue_size,
        timeout_seconds=settings.writer_timeout_seconds,
    )
    audit = AuditTrail(connector(settings), limits, registry, partial(describe_request, settings.trusted_proxies))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with (
            ThreadPoolExecutor(settings.password_threads, thread_name_prefix="passwords") as executor,
            exporting(recorder),
        ):
            chat = _assemble(settings, registry, executor, limits, doors.gate, audit)
            app.state.chat = chat
            trace_writes(recorder, chat.writer, chat.changes, chat.receipts)
            writers = (chat.writer, chat.changes, chat.receipts, audit.writer)
            for writer in writers:
                writer.start()
            doors.start(lambda: max(writer.queue_share for writer in writers))
            heads = HeadExport(
                settings.audit_head_file,
                partial(read_head, chat.engine),
                chat.keys,
                interval_seconds=settings.audit_head_seconds,
            )
            heads.start()
            try:
                audit.tell(SecurityEvent("api.started", None, {"keys": " ".join(chat.keys.ids)}))
                yield
            finally:
                await doors.close()
                await audit.finish_notes()
                for writer in writers:
                    await writer.close()
                await heads.close()
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
        lookup_router,
        channels_router,
        security_router,
        audit_router,
        health.router,
    )
    app.state.gate = doors.gate
    turn_metrics, http_metrics = TurnMetrics(registry), HttpMetrics(registry)
    # What stands before the application: the server's connections (python -m ingest_api).
    app.state.connection = partial(
        DoorProtocol,
        crowd=Crowd(
            served=settings.commands_served,
            most_held=settings.commands_waiting,
            patience_seconds=settings.command_patience_seconds,
            metrics=turn_metrics,
        ),
        metrics=http_metrics,
    )
    # The last one added is the first one called.
    app.add_middleware(
        CommandDispatch,
        routes=[route for router in routers for route in router.routes],
        turns=Turns(
            limit=settings.commands_served,
            most_waiting=settings.commands_waiting,
            patience_seconds=settings.command_patience_seconds,
            metrics=turn_metrics,
        ),
    )
    app.add_middleware(AddressGate, gate=doors.gate, trusted=settings.trusted_proxies)
    app.add_middleware(BodyLimit)
    app.add_middleware(
        RequestContexts,
        gate=doors.gate,
        metrics=http_metrics,
        on_refusal=audit.note,
        log_every=settings.log_every_request,
        tracing=None if recorder is None else Tracing(recorder, settings.trace_ratio),
    )
    app.add_middleware(SecurityHeaders)
    register_error_handlers(app)
    check_declarations(routers, PUBLIC_ROUTES)
    for router in routers:
        app.include_router(router)
    return app


def _assemble(
    settings: Settings,
    registry: CollectorRegistry,
    executor: ThreadPoolExecutor,
    limits: Limits,
    gate: Gate,
    audit: AuditTrail,
) -> State:
    connect = connector(settings)
    engine = create_engine(settings)
    keys = KeyFile(
        settings.signing_key_file,
        on_change=lambda ids: audit.tell(SecurityEvent("keys.changed", None, {"keys": " ".join(ids)})),
    )
    passwords = Passwords(executor, queue_size=settings.password_queue_size)
    verifier = TokenVerifier(keys, issuer=settings.issuer)
    issuers = [ExternalIssuer(trusted) for trusted in settings.trusted_issuers]

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
        authorization_server=AuthorizationServer(engine, passwords, audit.record, issuer=settings.issuer, keys=keys),
        authenticator=Authenticator(verifier, engine, issuers, audit.record_in),
        verifier=verifier,
        keys=keys,
        registry=registry,
        issuer=settings.issuer,
        gate=gate,
        audit=audit,
        webhook_allow_http=settings.webhook_allow_http,
    )
