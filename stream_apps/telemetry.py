"""Metrics of a stream app. (Faust's own sensors would cost a third of the throughput.)"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

APPLY_BUCKETS = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1, 2.5, 5, 10)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)


class StreamMetrics:
    """What every stream app counts, under its own name: `<app>_…`."""

    def __init__(self, app: str, registry: CollectorRegistry) -> None:
        self.records_total = Counter(f"{app}_records_total", "Records taken from Kafka.", registry=registry)
        self.batch_records = Histogram(
            f"{app}_batch_records", "Records per batch.", buckets=BATCH_BUCKETS, registry=registry
        )
        self.apply_seconds = Histogram(
            f"{app}_apply_seconds",
            "Seconds that a batch took to be applied, retries included.",
            buckets=APPLY_BUCKETS,
            registry=registry,
        )
        self.retries_total = Counter(
            f"{app}_retries_total", "Times a batch was retried because something was away.", registry=registry
        )
        self.dead_letters_total = Counter(
            f"{app}_dead_letters_total", "Records that could never be applied.", registry=registry
        )
        self.lag_records = Gauge(
            f"{app}_lag_records", "Records of this process's partitions that are not committed.", registry=registry
        )
        self.last_progress = Gauge(
            f"{app}_last_batch_timestamp_seconds", "When the last batch was applied.", registry=registry
        )


class TimelineMetrics(StreamMetrics):
    """What the timeline app counts besides."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__("timeline", registry)
        self.duplicates_total = Counter(
            "timeline_duplicates_total", "Events dropped because the table had them.", registry=registry
        )
        self.gaps_total = Counter(
            "timeline_gaps_total", "Times an event did not follow on its table's head.", registry=registry
        )
        self.rebuilds_total = Counter(
            "timeline_rebuilds_total", "Conversations rebuilt from Postgres.", registry=registry
        )
        self.repairs_total = Counter(
            "timeline_repairs_total", "Conversations whose tables held what is none of ours.", registry=registry
        )
        self.parked_conversations = Gauge(
            "timeline_parked_conversations", "Conversations whose events cannot be applied just now.", registry=registry
        )
        self.receipts_total = Counter("timeline_receipts_total", "Receipts that were news.", registry=registry)


class RouterMetrics(StreamMetrics):
    """What the router app counts besides."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__("router", registry)
        self.requests_total = Counter(
            "router_requests_total", "Records sent that have a message delivered.", registry=registry
        )
        self.unreadable_total = Counter(
            "router_unreadable_total",
            "Records without a usable envelope, which the timeline app sets aside.",
            registry=registry,
        )


class ChannelMetrics(StreamMetrics):
    """What the channels app counts besides."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__("channels", registry)
        self.deliveries_total = Counter(
            "channels_deliveries_total",
            "Tries to deliver, by what became of them.",
            ("channel", "outcome"),
            registry=registry,
        )
        self.messages_total = Counter("channels_messages_total", "Messages delivered.", ("channel",), registry=registry)
        self.delivery_seconds = Histogram(
            "channels_delivery_seconds",
            "Seconds that a target took to answer.",
            ("channel",),
            buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
            registry=registry,
        )
        self.targets = Gauge(
            "channels_targets", "Targets that have something to be delivered.", ("channel",), registry=registry
        )
        self.open_circuits = Gauge(
            "channels_open_circuits",
            "Of those, targets that fail and are only probed.",
            ("channel",),
            registry=registry,
        )
        self.disabled_total = Counter(
            "channels_disabled_total",
            "Channels disabled because they failed for too long.",
            ("channel",),
            registry=registry,
        )
        self.challenges_total = Counter(
            "channels_challenges_total", "Verification codes sent.", ("channel", "outcome"), registry=registry
        )
        self.details_lost_total = Counter(
            "channels_details_lost_total",
            "Outcomes that Redis did not take; Postgres has the state.",
            registry=registry,
        )
