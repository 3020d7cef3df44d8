"""Metrics of the ingest API, and the trace context that each entry carries."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

from infra.telemetry.instruments import Instruments
from ingest_api.catalogue import CATALOGUE
from schemas.traces import begin_trace, find_context


class WriterMetrics:
    """What the log writer counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        make = Instruments(registry, CATALOGUE)
        self.batch_size = make.histogram("ingest_api_writer_batch_entries")
        self.commit_seconds = make.histogram("ingest_api_writer_commit_seconds")
        self.commit_hop = make.bucket_counts("ingest_api_accepted_to_committed_seconds")
        self.queue_length = make.gauge("ingest_api_writer_queue_entries")
        self.refused_total = make.counter("ingest_api_writer_refused_total")


class HttpMetrics:
    """Rate, errors and duration by route template (never by path: that has no bound)."""

    def __init__(self, registry: CollectorRegistry) -> None:
        make = Instruments(registry, CATALOGUE)
        self.requests_total = make.counter("ingest_api_http_requests_total")
        self.request_seconds = make.histogram("ingest_api_http_request_seconds")
        self._children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """One answered request. (What the labels lead to is remembered: finding it costs more than counting.)"""
        children = self._children.get((method, route, status))
        if children is None:
            children = (
                self.requests_total.labels(method, route, str(status)),
                self.request_seconds.labels(method, route),
            )
            self._children[method, route, status] = children
        children[0].inc()
        children[1].observe(seconds)


def trace_context(traceparent: str | None) -> str:
    """The caller's `traceparent` (W3C Trace Context, section 3.2), or a new one, not sampled, if it is absent or
    malformed. (Where traces are exported, ingest_api/tracing.py has settled it before.)"""
    if traceparent is not None and find_context(traceparent) is not None:
        return traceparent
    return begin_trace(0.0).traceparent


class SpanMetrics:
    """What becomes of spans (infra.telemetry.otlp.Counts)."""

    def __init__(self, registry: CollectorRegistry) -> None:
        make = Instruments(registry, CATALOGUE)
        self.sent_total = make.counter("ingest_api_spans_sent_total")
        self.dropped_total = make.counter("ingest_api_spans_dropped_total")

    def sent(self, spans: int) -> None:
        """The collector has taken these."""
        self.sent_total.inc(spans)

    def dropped(self, spans: int, reason: str) -> None:
        """These are lost."""
        self.dropped_total.labels(reason).inc(spans)
