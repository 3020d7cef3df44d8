"""Traces of the API: which requests are sampled, and the spans of requests and commits. Off unless there is a
collector."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from starlette.types import Scope

from infra.telemetry.spans import Batch, Item, Recorder, Span, record_batch
from schemas.problems import ProblemError
from schemas.traces import TraceContext, begin_trace, find_context, find_sampled, follow


class ServerSpan(NamedTuple):
    """The span of a request that is being answered."""

    context: TraceContext
    parent: TraceContext | None
    start_ns: int


class Tracing:
    """Decides which traces are sampled, and records requests."""

    def __init__(self, recorder: Recorder, ratio: float) -> None:
        self.recorder = recorder
        self._ratio = ratio

    def settle(self, traceparent: str | None, *, may_begin: bool) -> tuple[str, ServerSpan | None]:
        """The traceparent of what a request writes, and its span if its trace is sampled. A caller's decision is
        followed; without one, `ratio` of the traces that may begin here are sampled."""
        parent = find_context(traceparent)
        if parent is not None and traceparent is not None:
            if not parent.is_sampled:
                return traceparent, None
            context = follow(parent)
        else:
            context = begin_trace(self._ratio if may_begin else 0.0)
            if not context.is_sampled:
                return context.traceparent, None
        return context.traceparent, ServerSpan(context, parent, time.time_ns())

    def note_answer(self, span: ServerSpan, scope: Scope, status: int) -> None:
        """The request is answered."""
        route = getattr(scope.get("route"), "path", None)
        method = scope["method"]
        attributes = {"http.request.method": method, "http.response.status_code": status}
        if route is not None:
            attributes["http.route"] = route
        name = method if route is None else f"{method} {route}"
        error = f"answered {status}" if status >= 500 else None
        self.recorder.record(
            Span(name, span.context, span.parent, span.start_ns, time.time_ns(), "server", attributes, error=error)
        )


T = TypeVar("T", bound=Any)


class CommitSpans(Generic[T]):
    """Records what group commits write: items with a `traceparent`."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def note(self, items: Sequence[T], results: Sequence[Any], taken_ns: int, settled_ns: int) -> None:
        """A batch was taken and settled."""
        sampled = [
            Item(parent, error=result.code if isinstance(result, ProblemError) else None)
            for item, result in zip(items, results, strict=True)
            if (parent := find_sampled(item.traceparent)) is not None
        ]
        if sampled:
            batch = Batch("commit batch", "commit", "internal", taken_ns, settled_ns, len(items))
            record_batch(self._recorder, batch, sampled)
