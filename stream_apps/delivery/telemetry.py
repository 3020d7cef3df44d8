"""Metrics of delivery: everything that is counted, in one place."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LATENCY_BUCKETS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1, 2.5, 5, 10)


class HttpMetrics:
    """Rate, errors and duration by route template (never by path: that has no bound)."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests_total = Counter(
            "delivery_http_requests_total",
            "HTTP requests answered.",
            ("method", "route", "status"),
            registry=registry,
        )
        self.request_seconds = Histogram(
            "delivery_http_request_seconds",
            "Seconds from the request's headers to its answer's start.",
            ("method", "route"),
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )


class ReadMetrics:
    """Who answered: the Redis tables, or Postgres in their place."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.reads_total = Counter(
            "delivery_reads_total", "Reads by what answered them: redis or postgres.", ("source",), registry=registry
        )
        self.from_redis = self.reads_total.labels("redis")
        self.from_postgres = self.reads_total.labels("postgres")
        self.redis_failures_total = Counter(
            "delivery_redis_failures_total", "Reads that Redis did not answer.", registry=registry
        )


class StreamMetrics:
    """What happens on live streams."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.open_streams = Gauge("delivery_open_streams", "Live streams that are open.", registry=registry)
        self.watched_channels = Gauge(
            "delivery_watched_channels", "Pub/Sub channels that this process is subscribed to.", registry=registry
        )
        self.frames_total = Counter(
            "delivery_live_frames_total", "Live frames that came from Redis.", registry=registry
        )
        self.sent_total = Counter(
            "delivery_stream_sent_total",
            "Events, gaps and comments handed to clients, once per client.",
            registry=registry,
        )
        self.caught_up_total = Counter(
            "delivery_stream_caught_up_events_total",
            "Events for clients that were read from a timeline or the log, because they did not come live.",
            registry=registry,
        )
        self.gaps_total = Counter(
            "delivery_stream_gaps_total", "Gaps that clients were told of.", ("reason",), registry=registry
        )
        self.ended_total = Counter(
            "delivery_streams_ended_total", "Streams that ended, by why.", ("reason",), registry=registry
        )
        self.reconnects_total = Counter(
            "delivery_subscriber_connections_total",
            "Connections to Redis that the subscriber made; more than one means that it lost one.",
            registry=registry,
        )


class RequestMetrics:
    """ASGI middleware that counts and times requests by the template of the route that matched."""

    def __init__(self, app: ASGIApp, *, metrics: HttpMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()

        async def counting_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "(none)")
                method = scope["method"] if route != "(none)" else "(any)"
                self._metrics.requests_total.labels(method, route, str(message["status"])).inc()
                self._metrics.request_seconds.labels(method, route).observe(time.perf_counter() - started)
            await send(message)

        await self._app(scope, receive, counting_send)
