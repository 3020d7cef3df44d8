"""Metrics of the canary."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from infra.telemetry.instruments import Instruments
from schemas.topics import CONVERSATION_EVENTS
from stream_apps.canary.catalogue import CATALOGUE, HOPS


class CanaryMetrics:
    """What the canary counts. Every partition is there from the beginning: what never came is told too."""

    def __init__(self, registry: CollectorRegistry) -> None:
        make = Instruments(registry, CATALOGUE)
        self.messages_total = make.counter("canary_messages_total")
        self.unaccepted_total = make.counter("canary_unaccepted_total")
        self.lost_total = make.counter("canary_lost_total")
        self.late_total = make.counter("canary_late_total")
        self.delivery_seconds = make.histogram("canary_delivery_seconds")
        self.hop_seconds = make.histogram("canary_hop_seconds")
        self.last_delivered = make.gauge("canary_last_delivered_timestamp_seconds")
        self.waiting = make.gauge("canary_waiting_messages")
        for partition in map(str, range(CONVERSATION_EVENTS.partitions)):
            for counted in (self.messages_total, self.unaccepted_total, self.lost_total):
                counted.labels(partition)
            self.last_delivered.labels(partition).set_to_current_time()
        for hop in HOPS:
            self.hop_seconds.labels(hop)
