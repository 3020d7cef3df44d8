"""Metrics of programs that are not ours, as far as rules and runbooks use them, by the job that tells them.
tests/faults/test_alerts.py asks Prometheus whether they do."""

from __future__ import annotations

from collections.abc import Mapping

OF_PROMETHEUS = frozenset({"up", "scrape_duration_seconds", "ALERTS"})
"""What Prometheus itself says of every target."""

EXPORTED: Mapping[str, frozenset[str]] = {
    "postgres": frozenset(
        {
            "pg_up",
            "pg_settings_max_connections",
            "pg_stat_activity_count",
            "pg_stat_activity_max_tx_duration",
            "pg_stat_database_deadlocks",
        }
    ),
    "redis": frozenset(
        {
            "redis_aof_enabled",
            "redis_evicted_keys_total",
            "redis_memory_max_bytes",
            "redis_memory_used_bytes",
            "redis_rdb_last_bgsave_status",
            "redis_rejected_connections_total",
            "redis_up",
        }
    ),
    "node": frozenset(
        {
            "node_filesystem_avail_bytes",
            "node_filesystem_size_bytes",
            "node_memory_MemAvailable_bytes",
            "node_memory_MemTotal_bytes",
            "node_timex_maxerror_seconds",
            "node_timex_offset_seconds",
            "node_timex_sync_status",
        }
    ),
    "connect": frozenset(
        {
            "debezium_streaming_connected",
            "debezium_streaming_milliseconds_behind_source",
            "debezium_streaming_queue_remaining_events",
            "kafka_connect_task_record_failures_total",
        }
    ),
    "certificates": frozenset({"probe_ssl_earliest_cert_expiry", "probe_success"}),
    "prometheus": frozenset(
        {
            "prometheus_config_last_reload_successful",
            "prometheus_notifications_alertmanagers_discovered",
            "prometheus_notifications_dropped_total",
            "prometheus_rule_evaluation_failures_total",
        }
    ),
    "alertmanager": frozenset(
        {"alertmanager_config_last_reload_successful", "alertmanager_notifications_failed_total"}
    ),
}

OF_PROCESSES = frozenset(
    {"process_max_fds", "process_open_fds", "process_resident_memory_bytes", "process_start_time_seconds"}
)
"""What prometheus_client tells of every process of ours."""
