"""Metrics of `supervise`."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class SuperviseMetrics:
    """What is seen of the declared connectors, and what was done. Everything but `is_leader` is told by each process;
    only the leader acts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.is_leader = Gauge("supervise_is_leader", "Whether this process is the one that acts.", registry=registry)
        self.connect_up = Gauge("supervise_connect_up", "Whether Kafka Connect answers.", registry=registry)
        self.database_up = Gauge(
            "supervise_database_up", "Whether slots and heartbeats could be read.", registry=registry
        )
        self.last_look = Gauge(
            "supervise_last_look_timestamp_seconds", "When the connectors were last looked at.", registry=registry
        )
        self.connector_running = Gauge(
            "supervise_connector_running",
            "Whether the connector and all its tasks run (1), as Connect says.",
            ("connector",),
            registry=registry,
        )
        self.different_settings = Gauge(
            "supervise_different_settings",
            "Settings that Connect holds otherwise than declared.",
            ("connector",),
            registry=registry,
        )
        self.needs_person = Gauge(
            "supervise_needs_person",
            "Whether only a person can put it right, by cause.",
            ("connector", "cause"),
            registry=registry,
        )
        self.actions_total = Counter(
            "supervise_actions_total", "What was done, by cause.", ("connector", "action", "cause"), registry=registry
        )
        self.failed_actions_total = Counter(
            "supervise_failed_actions_total", "What Connect did not do.", ("connector",), registry=registry
        )
        self.slot_lag_bytes = Gauge(
            "supervise_slot_lag_bytes",
            "Write-ahead log that is not confirmed to have reached Kafka.",
            ("connector",),
            registry=registry,
        )
        self.slot_held_bytes = Gauge(
            "supervise_slot_held_bytes",
            "Write-ahead log that PostgreSQL keeps for the slot.",
            ("connector",),
            registry=registry,
        )
        self.heartbeat_age_seconds = Gauge(
            "supervise_heartbeat_age_seconds", "Age of the connector's heartbeat.", ("connector",), registry=registry
        )
