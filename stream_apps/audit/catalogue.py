"""The metrics of audit. Faults count once they have lasted (docs/operations.md)."""

from __future__ import annotations

from schemas.metrics import PROCESS_METRICS, Label, catalogue, counter, gauge
from stream_apps.audit.checker import Kind, Place

CATALOGUE = catalogue(
    *PROCESS_METRICS,
    counter("audit_looks_total", "looks", "Times that audit looked."),
    counter("audit_failed_looks_total", "looks", "Times that it could not, because something was away."),
    gauge("audit_last_look_timestamp_seconds", "seconds", "When it last looked, since 1970."),
    counter("audit_entries_total", "entries", "Entries and records compared."),
    counter("audit_faults_total", "faults", "Faults found.", Label("place", tuple(Place)), Label("kind", tuple(Kind))),
    counter("audit_redelivered_total", "records", "Records that Kafka carried again, which it may."),
    gauge("audit_suspects", "suspects", "What looks like a fault, and may be a matter of time."),
    counter("audit_repairs_total", "conversations", "Conversations rebuilt for a fault."),
    counter(
        "audit_heals_total",
        "times",
        "Times that lost or outdated tables were rebuilt.",
        Label("reason", ("start", "lost", "rewound", "unfinished")),
    ),
    gauge("audit_healing", "1", "1 while lost or outdated tables are being rebuilt."),
    gauge("audit_kafka_is_followed", "1", "1 while records are read from Kafka."),
)
