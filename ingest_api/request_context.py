"""Plain ASGI middleware around everything else: the request's id and trace, the answer while shutting down, and the
log of requests (sampled: a line per request costs more than it tells)."""

from __future__ import annotations

import logging
import re
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ingest_api.admission.gate import Gate
from ingest_api.admission.ladder import ShuttingDown
from ingest_api.errors import problem_response
from ingest_api.logs import RequestContext, current_request
from ingest_api.telemetry import trace_context

logger = logging.getLogger("ingest_api.requests")

REQUEST_ID_HEADER = "X-Request-ID"
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_READS = {"GET", "HEAD", "OPTIONS"}


class RequestContexts:
    """Takes over a sane `X-Request-ID` (the trace's id is the default) and echoes it. `log_every` n: the n-th request
    is logged; 0: none."""

    def __init__(self, app: ASGIApp, *, gate: Gate, log_every: int) -> None:
        self._app = app
        self._gate = gate
        self._log_every = log_every
        self._count = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _identify(scope)
        header = (b"x-request-id", request_id)
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], header]
            await send(message)

        if self._gate.is_closed and scope["method"] not in _READS:
            await problem_response(ShuttingDown())(scope, receive, send_with_id)
            return
        self._count += 1
        if not self._log_every or self._count % self._log_every:
            await self._app(scope, receive, send_with_id)
            return
        started = time.perf_counter()
        try:
            await self._app(scope, receive, send_with_id)
        finally:
            logger.info(
                "%s %s",
                scope["method"],
                scope["path"],
                extra={"status": status, "seconds": round(time.perf_counter() - started, 6)},
            )


def _identify(scope: Scope) -> bytes:
    """The request's id. The trace context that goes into what is stored is settled here, so that logs tell of the same
    trace."""
    request_id = traceparent = None
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            request_id = value
        elif name == b"traceparent":
            traceparent = value.decode("latin-1")
    trace = trace_context(traceparent)
    if trace != traceparent:
        kept = [item for item in scope["headers"] if item[0] != b"traceparent"]
        scope["headers"] = [*kept, (b"traceparent", trace.encode())]
    trace_id = trace[3:35]
    if request_id is None or not _REQUEST_ID.fullmatch(request_id):
        request_id = trace_id.encode()
    current_request.set(RequestContext(request_id.decode(), trace_id))
    return bytes(request_id)
