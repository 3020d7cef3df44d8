"""The metrics of the stream apps that Faust runs. (audit and delivery, which it does not run, have their own.)"""

from __future__ import annotations

from schemas.channels import CHANNELS
from schemas.metrics import (
    HOP_BUCKETS,
    PROCESS_METRICS,
    Catalogue,
    Label,
    Metric,
    catalogue,
    counter,
    gauge,
    histogram,
    span_metrics,
)
from schemas.topics import TOPICS

APPLY_BUCKETS = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
BATCH_BUCKETS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0)
TARGET_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

_CHANNEL = Label("channel", CHANNELS)


def worker_catalogue(app: str, *own: Metric) -> Catalogue:
    """What every stream app counts, under its own name, and its own metrics."""
    return catalogue(
        *PROCESS_METRICS,
        counter(f"{app}_records_total", "records", "Records taken from Kafka."),
        histogram(f"{app}_batch_records", "records", "Records per batch.", BATCH_BUCKETS),
        histogram(
            f"{app}_apply_seconds", "seconds", "How long a batch took to be applied, retries included.", APPLY_BUCKETS
        ),
        counter(f"{app}_retries_total", "times", "Times a batch was retried because something was away."),
        counter(f"{app}_dead_letters_total", "records", "Records that could never be applied."),
        gauge(f"{app}_lag_records", "records", "Records of this process's partitions that are not committed."),
        gauge(f"{app}_last_batch_timestamp_seconds", "seconds", "When the last batch was applied, since 1970."),
        gauge(
            f"{app}_partition_lag_records",
            "records",
            "Records of a partition that this app's consumer group has not committed, of the partitions that this"
            " process is assigned.",
            Label("topic", tuple(topic.name for topic in TOPICS)),
            Label("partition", bound="the topic's partitions, twelve at the most"),
        ),
        gauge(
            f"{app}_seconds_without_progress",
            "seconds",
            "How long records have waited without one being committed.",
        ),
        *span_metrics(app),
        *own,
    )


TIMELINE = worker_catalogue(
    "timeline",
    counter("timeline_duplicates_total", "events", "Events dropped because the table had them."),
    counter("timeline_gaps_total", "times", "Times an event did not follow on its table's head."),
    counter("timeline_rebuilds_total", "conversations", "Conversations rebuilt from Postgres."),
    counter("timeline_repairs_total", "conversations", "Conversations whose tables held what is none of ours."),
    gauge("timeline_parked_conversations", "conversations", "Conversations whose events cannot be applied just now."),
    counter("timeline_receipts_total", "receipts", "Receipts that were news."),
    histogram(
        "timeline_created_to_appended_seconds",
        "seconds",
        "Hop: from when an event got its seq until Kafka appended its record. Kafka tells milliseconds: half a one is"
        " added.",
        HOP_BUCKETS,
    ),
    histogram(
        "timeline_appended_to_applied_seconds",
        "seconds",
        "Hop: from when Kafka appended an event's record until the tables had it and live clients were told.",
        HOP_BUCKETS,
    ),
)

ROUTER = worker_catalogue(
    "router",
    counter("router_requests_total", "records", "Records sent that have a message delivered."),
    counter(
        "router_unreadable_total",
        "records",
        "Records without a usable envelope, which the timeline app sets aside.",
    ),
)

CHANNEL_METRICS = worker_catalogue(
    "channels",
    counter(
        "channels_deliveries_total",
        "tries",
        "Tries to deliver, by what became of them.",
        _CHANNEL,
        Label("outcome", ("delivered", "trylater", "refused", "unavailable")),
    ),
    counter("channels_messages_total", "messages", "Messages delivered.", _CHANNEL),
    histogram("channels_delivery_seconds", "seconds", "How long a target took to answer.", TARGET_BUCKETS, _CHANNEL),
    gauge("channels_targets", "targets", "Targets that have something to be delivered.", _CHANNEL),
    gauge("channels_open_circuits", "targets", "Of those, targets that fail and are only probed.", _CHANNEL),
    counter("channels_disabled_total", "channels", "Channels disabled because they failed for too long.", _CHANNEL),
    counter(
        "channels_challenges_total",
        "codes",
        "Verification codes sent.",
        _CHANNEL,
        Label("outcome", ("delivered", "trylater", "refused", "unavailable")),
    ),
    counter("channels_details_lost_total", "outcomes", "Outcomes that Redis did not take; Postgres has the state."),
)
