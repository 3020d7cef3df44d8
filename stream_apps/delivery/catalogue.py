"""The metrics of delivery."""

from __future__ import annotations

from schemas.metrics import (
    HOP_BUCKETS,
    PROCESS_METRICS,
    Label,
    catalogue,
    counter,
    gauge,
    histogram,
    http_metrics,
    span_metrics,
)

CATALOGUE = catalogue(
    *PROCESS_METRICS,
    *http_metrics("delivery", "delivery's"),
    counter("delivery_reads_total", "reads", "Reads by what answered them.", Label("source", ("redis", "postgres"))),
    counter("delivery_redis_failures_total", "reads", "Reads that Redis did not answer."),
    gauge("delivery_open_streams", "clients", "Live streams that are open."),
    gauge("delivery_watched_channels", "channels", "Pub/Sub channels that this process is subscribed to."),
    counter("delivery_live_frames_total", "frames", "Live frames that came from Redis."),
    counter("delivery_stream_sent_total", "frames", "Events, gaps and comments handed to clients, once per client."),
    counter(
        "delivery_stream_caught_up_events_total",
        "events",
        "Events for clients that were read from a timeline or the log, because they did not come live.",
    ),
    counter(
        "delivery_stream_gaps_total",
        "gaps",
        "Gaps that clients were told of.",
        Label("reason", ("unknown_cursor", "unavailable", "missing")),
    ),
    counter(
        "delivery_streams_ended_total",
        "streams",
        "Streams that ended, by why.",
        Label(
            "reason",
            (
                "client_left",
                "shutdown",
                "slow_client",
                "token_expired",
                "unauthenticated",
                "insufficient_scope",
                "too_many_frames",
                "error",
            ),
        ),
    ),
    counter(
        "delivery_subscriber_connections_total",
        "connections",
        "Connections to Redis that the subscriber made; more than one means that it lost one.",
    ),
    histogram(
        "delivery_applied_to_sent_seconds",
        "seconds",
        "Hop: from when Redis took an event until delivery had handed it to its watchers' connections.",
        HOP_BUCKETS,
    ),
    histogram(
        "delivery_accepted_to_sent_seconds",
        "seconds",
        "From when an event got its seq until delivery had handed it on: `live` once per event to its watchers, and"
        " `caught_up` once per client that was there and had to have it read from a timeline or the log.",
        HOP_BUCKETS,
        Label("way", ("live", "caught_up")),
    ),
    *span_metrics("delivery"),
)
