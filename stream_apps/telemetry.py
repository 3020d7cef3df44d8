"""Metrics of a stream app. (Faust's own sensors would cost a third of the throughput.)"""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry

from infra.telemetry.instruments import Instruments
from schemas.metrics import Catalogue, catalogue, sample_step, span_metrics
from schemas.passages import find_created_us
from stream_apps.catalogue import CHANNEL_METRICS, ROUTER, TIMELINE, worker_catalogue
from stream_apps.records import Record

HALF_A_MILLISECOND = 500
"""In microseconds: Kafka cuts times off to milliseconds, so this is what they lack on average."""


class StreamMetrics:
    """What every stream app counts, under its own name: `<app>_…`."""

    def __init__(self, app: str, registry: CollectorRegistry, declared: Catalogue | None = None) -> None:
        make = self._make = Instruments(registry, declared or worker_catalogue(app))
        self.records_total = make.counter(f"{app}_records_total")
        self.batch_records = make.histogram(f"{app}_batch_records")
        self.apply_seconds = make.histogram(f"{app}_apply_seconds")
        self.retries_total = make.counter(f"{app}_retries_total")
        self.dead_letters_total = make.counter(f"{app}_dead_letters_total")
        self.lag_records = make.gauge(f"{app}_lag_records")
        self.last_progress = make.gauge(f"{app}_last_batch_timestamp_seconds")


class SpanMetrics:
    """What becomes of a program's spans (infra.telemetry.spans.Counts)."""

    def __init__(self, program: str, registry: CollectorRegistry) -> None:
        make = Instruments(registry, catalogue(*span_metrics(program)))
        self.sent_total = make.counter(f"{program}_spans_sent_total")
        self.dropped_total = make.counter(f"{program}_spans_dropped_total")

    def sent(self, spans: int) -> None:
        """The collector has taken these."""
        self.sent_total.inc(spans)

    def dropped(self, spans: int, reason: str) -> None:
        """These are lost."""
        self.dropped_total.labels(reason).inc(spans)


class TimelineMetrics(StreamMetrics):
    """What the timeline app counts besides."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__("timeline", registry, TIMELINE)
        make = self._make
        self.duplicates_total = make.counter("timeline_duplicates_total")
        self.gaps_total = make.counter("timeline_gaps_total")
        self.rebuilds_total = make.counter("timeline_rebuilds_total")
        self.repairs_total = make.counter("timeline_repairs_total")
        self.parked_conversations = make.gauge("timeline_parked_conversations")
        self.receipts_total = make.counter("timeline_receipts_total")
        self._append_hop = make.bucket_counts("timeline_created_to_appended_seconds")
        self._apply_hop = make.bucket_counts("timeline_appended_to_applied_seconds")

    def observe_hops(self, records: Sequence[Record], *, applied_us: int) -> None:
        """These records were applied now, in microseconds since 1970. Of many, some are measured for all."""
        step = sample_step(len(records))
        appends: list[float] = []
        applies: list[float] = []
        for record in records[::step]:
            appended_us = record.timestamp * 1000 + HALF_A_MILLISECOND
            applies.append((applied_us - appended_us) / 1e6)
            created_us = find_created_us(record.value or b"")
            if created_us is not None:
                appends.append((appended_us - created_us) / 1e6)
        self._append_hop.add(appends, weight=step)
        self._apply_hop.add(applies, weight=step)


class RouterMetrics(StreamMetrics):
    """What the router app counts besides."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__("router", registry, ROUTER)
        make = self._make
        self.requests_total = make.counter("router_requests_total")
        self.unreadable_total = make.counter("router_unreadable_total")


class ChannelMetrics(StreamMetrics):
    """What the channels app counts besides."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__("channels", registry, CHANNEL_METRICS)
        make = self._make
        self.deliveries_total = make.counter("channels_deliveries_total")
        self.messages_total = make.counter("channels_messages_total")
        self.delivery_seconds = make.histogram("channels_delivery_seconds")
        self.targets = make.gauge("channels_targets")
        self.open_circuits = make.gauge("channels_open_circuits")
        self.disabled_total = make.counter("channels_disabled_total")
        self.challenges_total = make.counter("channels_challenges_total")
        self.details_lost_total = make.counter("channels_details_lost_total")
