"""Metrics of the ingest API, and the trace context that each entry carries."""

from __future__ import annotations

import re
import secrets

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

LATENCY_BUCKETS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1, 2.5, 5, 10)
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


class WriterMetrics:
    """What the log writer counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.batch_size = Histogram(
            "ingest_api_writer_batch_entries",
            "Log entries per commit.",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
            registry=registry,
        )
        self.commit_seconds = Histogram(
            "ingest_api_writer_commit_seconds",
            "Seconds from taking a batch to its answers.",
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.queue_length = Gauge(
            "ingest_api_writer_queue_entries", "Log entries that wait for a commit.", registry=registry
        )
        self.refused_total = Counter(
            "ingest_api_writer_refused_total",
            "Entries refused because the queue was full.",
            registry=registry,
        )


class HttpMetrics:
    """Rate, errors and duration by route template (never by path: that has no bound)."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests_total = Counter(
            "ingest_api_http_requests_total",
            "HTTP requests answered.",
            ("method", "route", "status"),
            registry=registry,
        )
        self.request_seconds = Histogram(
            "ingest_api_http_request_seconds",
            "Seconds from the request's headers to its answer's start.",
            ("method", "route"),
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
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
    """The caller's `traceparent` (W3C Trace Context, section 3.2), or a new sampled one if it is absent or
    malformed."""
    if traceparent is not None and _TRACEPARENT.fullmatch(traceparent):
        return traceparent
    random = secrets.token_hex(24)
    return f"00-{random[:32]}-{random[32:]}-01"
