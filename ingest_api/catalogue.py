"""The metrics of the ingest API."""

from __future__ import annotations

from schemas.metrics import (
    HOP_BUCKETS,
    LATENCY_BUCKETS,
    PROCESS_METRICS,
    Label,
    catalogue,
    counter,
    gauge,
    histogram,
    http_metrics,
    span_metrics,
)

BATCH_BUCKETS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)


CATALOGUE = catalogue(
    *PROCESS_METRICS,
    *http_metrics("ingest_api", "the API's"),
    histogram("ingest_api_writer_batch_entries", "entries", "Log entries per commit.", BATCH_BUCKETS),
    histogram("ingest_api_writer_commit_seconds", "seconds", "From taking a batch to its answers.", LATENCY_BUCKETS),
    histogram(
        "ingest_api_accepted_to_committed_seconds",
        "seconds",
        "Hop: from when a message, an edit or a deletion came to the log writer until it was committed.",
        HOP_BUCKETS,
    ),
    gauge("ingest_api_writer_queue_entries", "entries", "Log entries that wait for a commit."),
    counter("ingest_api_writer_refused_total", "entries", "Entries refused because the queue was full."),
    gauge("ingest_api_admission_state", "state", "0 green, 1 yellow, 2 orange, 3 red, 4 lost."),
    gauge("ingest_api_slot_lag_bytes", "bytes", "Write-ahead log that the replication slot holds back."),
    gauge("ingest_api_slot_lag_seconds", "seconds", "Age of the oldest position that its reader has not confirmed."),
    gauge("ingest_api_wal_headroom_bytes", "bytes", "What the slot may still hold before it is given up."),
    counter(
        "ingest_api_admission_refused_total",
        "requests",
        "Requests refused because the system was behind.",
        Label("request_class", ("batch", "send", "command", "login")),
        Label("state", ("green", "yellow", "orange", "red", "lost")),
    ),
    counter("ingest_api_admission_failed_samples_total", "readings", "Readings of the slot that failed."),
    gauge("ingest_api_commands_served", "commands", "Commands that are worked on."),
    gauge("ingest_api_commands_waiting", "commands", "Commands that wait for their turn."),
    gauge("ingest_api_commands_held", "commands", "Commands that are held back, unread, in a crowd."),
    counter("ingest_api_commands_refused_total", "commands", "Commands that waited in vain for their turn."),
    counter(
        "ingest_api_rate_limited_total",
        "requests",
        "Requests refused by a rate limit.",
        Label("limit", bound="the quotas among the settings"),
    ),
    gauge("ingest_api_rate_limits_are_local", "1", "1 while Redis does not answer and each process limits on its own."),
    gauge("ingest_api_rate_limit_buckets", "buckets", "Users, conversations and addresses that are being counted."),
    counter(
        "ingest_api_audit_recorded_total",
        "entries",
        "Entries of the audit log.",
        Label("action", bound="the security events that the code names"),
    ),
    counter("ingest_api_audit_dropped_total", "events", "Security events that were counted and not recorded."),
    *span_metrics("ingest_api"),
)
