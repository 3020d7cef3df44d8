"""Metrics of `supervise`."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from connectors.supervise.catalogue import CATALOGUE
from infra.telemetry.instruments import Instruments


class SuperviseMetrics:
    """What is seen of the declared connectors, and what was done. Everything but `is_leader` is told by each process;
    only the leader acts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        make = Instruments(registry, CATALOGUE)
        self.is_leader = make.gauge("supervise_is_leader")
        self.connect_up = make.gauge("supervise_connect_up")
        self.database_up = make.gauge("supervise_database_up")
        self.transaction_id_age = make.gauge("supervise_transaction_id_age")
        self.last_look = make.gauge("supervise_last_look_timestamp_seconds")
        self.connector_running = make.gauge("supervise_connector_running")
        self.different_settings = make.gauge("supervise_different_settings")
        self.needs_person = make.gauge("supervise_needs_person")
        self.actions_total = make.counter("supervise_actions_total")
        self.failed_actions_total = make.counter("supervise_failed_actions_total")
        self.slot_lag_bytes = make.gauge("supervise_slot_lag_bytes")
        self.slot_held_bytes = make.gauge("supervise_slot_held_bytes")
        self.heartbeat_age_seconds = make.gauge("supervise_heartbeat_age_seconds")
