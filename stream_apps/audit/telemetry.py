"""Metrics of audit."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class AuditMetrics:
    """What audit counts. Faults count once they have lasted (docs/operations.md)."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.looks_total = Counter("audit_looks_total", "Times that audit looked.", registry=registry)
        self.failed_looks_total = Counter(
            "audit_failed_looks_total", "Times that it could not, because something was away.", registry=registry
        )
        self.last_look = Gauge("audit_last_look_timestamp_seconds", "When it last looked.", registry=registry)
        self.entries_total = Counter("audit_entries_total", "Entries and records compared.", registry=registry)
        self.faults_total = Counter("audit_faults_total", "Faults found.", ["place", "kind"], registry=registry)
        self.redelivered_total = Counter(
            "audit_redelivered_total", "Records that Kafka carried again, which it may.", registry=registry
        )
        self.suspects = Gauge(
            "audit_suspects", "What looks like a fault, and may be a matter of time.", registry=registry
        )
        self.repairs_total = Counter("audit_repairs_total", "Conversations rebuilt for a fault.", registry=registry)
        self.heals_total = Counter(
            "audit_heals_total", "Times that lost or outdated tables were rebuilt.", ["reason"], registry=registry
        )
        self.healing = Gauge("audit_healing", "1 while lost or outdated tables are being rebuilt.", registry=registry)
        self.kafka_is_followed = Gauge(
            "audit_kafka_is_followed", "1 while records are read from Kafka.", registry=registry
        )
