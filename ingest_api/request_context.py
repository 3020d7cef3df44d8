"""Plain ASGI middleware around everything else, in one layer since each costs: the request's id and trace, metrics, the
answer while shutting down, and the log of requests (sampled: a line for each costs more than it tells)."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Awaitable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ingest_api.admission.gate import Gate
from ingest_api.admission.refusals import ShuttingDown
from ingest_api.errors import problem_response
from ingest_api.logs import RequestContext, current_request
from ingest_api.telemetry import HttpMetrics, trace_context

logger = logging.getLogger("ingest_api.requests")

REQUEST_ID_HEADER = "X-Request-ID"
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_READS = {"GET", "HEAD", "OPTIONS"}


class RequestContexts:
    """Takes over a sane `X-Request-ID` (the trace's id is the default) and echoes it; counts and times requests by the
    template of the route that matched. `log_every` n: the n-th request is logged; 0: none."""

    def __init__(self, app: ASGIApp, *, gate: Gate, metrics: HttpMetrics, log_every: int) -> None:
        self._app = app
        self._gate = gate
        self._metrics = metrics
        self._log_every = log_every
        self._count = 0

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http":
            return self._app(scope, receive, send)
        started = time.perf_counter()
        header = (b"x-request-id", _identify(scope))

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], header]
                self._observe(scope, str(message["status"]), time.perf_counter() - started)
            await send(message)

        if self._gate.is_closed and scope["method"] not in _READS:
            return problem_response(ShuttingDown())(scope, receive, send_on)
        return self._app(scope, receive, send_on)

    def _observe(self, scope: Scope, status: str, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "(none)")
        method = scope["method"] if route != "(none)" else "(any)"
        self._metrics.requests_total.labels(method, route, status).inc()
        self._metrics.request_seconds.labels(method, route).observe(seconds)
        if self._log_every:
            self._count += 1
            if self._count % self._log_every == 0:
                extra = {"status": int(status), "seconds": round(seconds, 6)}
                logger.info("%s %s", scope["method"], scope["path"], extra=extra)


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
    if trace is not traceparent:
        headers = scope["headers"]
        if traceparent is not None:
            headers = [item for item in headers if item[0] != b"traceparent"]
        scope["headers"] = [*headers, (b"traceparent", trace.encode())]
    if request_id is None or not _REQUEST_ID.fullmatch(request_id):
        request_id = trace[3:35].encode()
    current_request.set(RequestContext(request_id, trace))
    return bytes(request_id)
