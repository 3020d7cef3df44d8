"""Metrics of delivery: everything that is counted, in one place."""

from __future__ import annotations

import time
from collections.abc import Sequence

from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from infra.telemetry.instruments import Instruments
from schemas.metrics import sample_step
from schemas.passages import find_created_us
from schemas.redis_keys import LiveFrame
from stream_apps.delivery.catalogue import CATALOGUE


class HttpMetrics:
    """Rate, errors and duration by route template (never by path: that has no bound)."""

    def __init__(self, registry: CollectorRegistry) -> None:
        make = Instruments(registry, CATALOGUE)
        self.requests_total = make.counter("delivery_http_requests_total")
        self.request_seconds = make.histogram("delivery_http_request_seconds")


class ReadMetrics:
    """Who answered: the Redis tables, or Postgres in their place."""

    def __init__(self, registry: CollectorRegistry) -> None:
        make = Instruments(registry, CATALOGUE)
        self.reads_total = make.counter("delivery_reads_total")
        self.from_redis = self.reads_total.labels("redis")
        self.from_postgres = self.reads_total.labels("postgres")
        self.redis_failures_total = make.counter("delivery_redis_failures_total")


class StreamMetrics:
    """What happens on live streams."""

    def __init__(self, registry: CollectorRegistry) -> None:
        make = Instruments(registry, CATALOGUE)
        self.open_streams = make.gauge("delivery_open_streams")
        self.watched_channels = make.gauge("delivery_watched_channels")
        self.frames_total = make.counter("delivery_live_frames_total")
        self.sent_total = make.counter("delivery_stream_sent_total")
        self.caught_up_total = make.counter("delivery_stream_caught_up_events_total")
        self.gaps_total = make.counter("delivery_stream_gaps_total")
        self.ended_total = make.counter("delivery_streams_ended_total")
        self.reconnects_total = make.counter("delivery_subscriber_connections_total")
        self._send_hop = make.bucket_counts("delivery_applied_to_sent_seconds")
        end_to_end = make.labelled_counts("delivery_accepted_to_sent_seconds")
        self._live = end_to_end["live",]
        self._caught_up = end_to_end["caught_up",]

    def observe_sent(self, frames: Sequence[LiveFrame], *, sent_us: int) -> None:
        """The watchers of these frames were told now, in microseconds since 1970. Of many, some are measured for
        all."""
        step = sample_step(len(frames))
        sends: list[float] = []
        ways: list[float] = []
        for frame in frames[::step]:
            if frame.passage is not None:
                sends.append((sent_us - frame.passage.applied_us) / 1e6)
            created_us = find_created_us(frame.payload)
            if created_us is not None:
                ways.append((sent_us - created_us) / 1e6)
        self._send_hop.add(sends, weight=step)
        self._live.add(ways, weight=step)

    def observe_caught_up(self, payload: bytes, *, sent_us: int, since_us: int) -> None:
        """A client was told of an event that was read for it. What is older than the client's session (`since_us`) was
        not late: the client was not there."""
        created_us = find_created_us(payload)
        if created_us is not None and created_us >= since_us:
            self._caught_up.add([(sent_us - created_us) / 1e6])


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
