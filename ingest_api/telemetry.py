"""Metrics of the ingest API, and the trace context that each entry carries."""

from __future__ import annotations

import re
import secrets

from prometheus_client import CollectorRegistry, Counter, Histogram

from ingest_api.catalogue import CATALOGUE
from ingest_api.instruments import Instruments

_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


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
    """The caller's `traceparent` (W3C Trace Context, section 3.2), or a new sampled one if it is absent or
    malformed."""
    if traceparent is not None and _TRACEPARENT.fullmatch(traceparent):
        return traceparent
    random = secrets.token_hex(24)
    return f"00-{random[:32]}-{random[32:]}-01"
