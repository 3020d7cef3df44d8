"""Plain ASGI middleware around everything else, in one layer since each costs: the request's id and trace, metrics, the
answer while shutting down, who is refused, and the log of requests (sampled: a line for each costs more than it tells).
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Awaitable, Callable, Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ingest_api.admission.gate import Gate
from ingest_api.admission.refusals import ShuttingDown
from ingest_api.errors import problem_response
from ingest_api.limits.addresses import Network, client_address
from ingest_api.logs import RequestContext, current_request
from ingest_api.security.events import SecurityEvent
from ingest_api.telemetry import HttpMetrics, trace_context
from ingest_api.tracing import ServerSpan, Tracing
from schemas.tokens import Principal

logger = logging.getLogger("ingest_api.requests")

REQUEST_ID_HEADER = "X-Request-ID"
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_READS = {"GET", "HEAD", "OPTIONS"}
_REFUSED = {401, 403, 429}


class RequestContexts:
    """Takes over a sane `X-Request-ID` (the trace's id is the default) and echoes it; counts and times requests by the
    template of the route that matched. `log_every` n: the n-th request is logged; 0: none."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        gate: Gate,
        metrics: HttpMetrics,
        on_refusal: Callable[[SecurityEvent], None],
        log_every: int,
        tracing: Tracing | None = None,
    ) -> None:
        self._app = app
        self._gate = gate
        self._metrics = metrics
        self._on_refusal = on_refusal
        self._log_every = log_every
        self._tracing = tracing
        self._count = 0

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http":
            return self._app(scope, receive, send)
        started = time.perf_counter()
        request_id, span = _identify(scope, self._tracing)
        header = (b"x-request-id", request_id)

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], header]
                self._observe(scope, message["status"], time.perf_counter() - started)
                if span is not None and self._tracing is not None:
                    self._tracing.note_answer(span, scope, message["status"])
            await send(message)

        if self._gate.is_closed and scope["method"] not in _READS:
            return problem_response(ShuttingDown())(scope, receive, send_on)
        return self._app(scope, receive, send_on)

    def _observe(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "(none)")
        method = scope["method"] if route != "(none)" else "(any)"
        self._metrics.count(method, route, status, seconds)
        if status in _REFUSED:
            principal: Principal | None = scope.get("principal")
            actor_id = (principal.user_id or principal.client_id) if principal is not None else None
            detail = {"status": str(status), "method": scope["method"], "route": route}
            self._on_refusal(SecurityEvent("request.refused", actor_id, detail))
        if self._log_every:
            self._count += 1
            if self._count % self._log_every == 0:
                extra = {"status": status, "seconds": round(seconds, 6)}
                logger.info("%s %s", scope["method"], scope["path"], extra=extra)


def describe_request(trusted: Sequence[Network]) -> dict[str, str]:
    """The id of the request that is being answered, and the address that it comes from; nothing if there is none."""
    context = current_request.get()
    if context is None:
        return {}
    return {"request_id": context.request_id.decode(), "address": client_address(context.scope, trusted)}


def _identify(scope: Scope, tracing: Tracing | None) -> tuple[bytes, ServerSpan | None]:
    """The request's id, and its span if its trace is sampled. The trace context that goes into what is stored is
    settled here, so that logs tell of the same trace."""
    request_id = traceparent = None
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            request_id = value
        elif name == b"traceparent":
            traceparent = value.decode("latin-1")
    span: ServerSpan | None = None
    if tracing is None:
        trace = trace_context(traceparent)
    else:
        trace, span = tracing.settle(traceparent, may_begin=scope["method"] not in _READS)
    if trace is not traceparent:
        headers = scope["headers"]
        if traceparent is not None:
            headers = [item for item in headers if item[0] != b"traceparent"]
        scope["headers"] = [*headers, (b"traceparent", trace.encode())]
    if request_id is None or not _REQUEST_ID.fullmatch(request_id):
        request_id = trace[3:35].encode()
    current_request.set(RequestContext(request_id, trace, scope))
    return bytes(request_id), span
