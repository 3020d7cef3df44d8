"""Metrics of audit."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from infra.telemetry.instruments import Instruments
from stream_apps.audit.catalogue import CATALOGUE


class AuditMetrics:
    """What audit counts. Faults count once they have lasted (docs/operations.md)."""

    def __init__(self, registry: CollectorRegistry) -> None:
        make = Instruments(registry, CATALOGUE)
        self.looks_total = make.counter("audit_looks_total")
        self.failed_looks_total = make.counter("audit_failed_looks_total")
        self.last_look = make.gauge("audit_last_look_timestamp_seconds")
        self.entries_total = make.counter("audit_entries_total")
        self.faults_total = make.counter("audit_faults_total")
        self.redelivered_total = make.counter("audit_redelivered_total")
        self.suspects = make.gauge("audit_suspects")
        self.repairs_total = make.counter("audit_repairs_total")
        self.heals_total = make.counter("audit_heals_total")
        self.healing = make.gauge("audit_healing")
        self.kafka_is_followed = make.gauge("audit_kafka_is_followed")
