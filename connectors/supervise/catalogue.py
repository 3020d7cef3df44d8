"""The metrics of `supervise`."""

from __future__ import annotations

from connectors.supervise.causes import Cause
from connectors.supervise.decision import Action
from schemas.metrics import PROCESS_METRICS, Label, catalogue, counter, gauge

_CONNECTOR = Label("connector", bound="the declared connectors")
_CAUSE = Label("cause", tuple(Cause))

CATALOGUE = catalogue(
    *PROCESS_METRICS,
    gauge("supervise_is_leader", "1", "Whether this process is the one that acts."),
    gauge("supervise_connect_up", "1", "Whether Kafka Connect answers."),
    gauge("supervise_database_up", "1", "Whether slots and heartbeats could be read."),
    gauge(
        "supervise_transaction_id_age",
        "transactions",
        "Transactions since the oldest that VACUUM has not frozen; near 2.1 billion PostgreSQL takes no writes.",
    ),
    gauge("supervise_last_look_timestamp_seconds", "seconds", "When the connectors were last looked at, since 1970."),
    gauge(
        "supervise_connector_running",
        "1",
        "Whether the connector and all its tasks run, as Connect says.",
        _CONNECTOR,
    ),
    gauge(
        "supervise_different_settings", "settings", "Settings that Connect holds otherwise than declared.", _CONNECTOR
    ),
    gauge("supervise_needs_person", "1", "Whether only a person can put it right, by cause.", _CONNECTOR, _CAUSE),
    counter(
        "supervise_actions_total",
        "actions",
        "What was done, by cause.",
        _CONNECTOR,
        Label("action", tuple(action.name.lower() for action in Action)),
        _CAUSE,
    ),
    counter("supervise_failed_actions_total", "actions", "What Connect did not do.", _CONNECTOR),
    gauge(
        "supervise_slot_lag_bytes",
        "bytes",
        "Write-ahead log that is not confirmed to have reached Kafka.",
        _CONNECTOR,
    ),
    gauge("supervise_slot_held_bytes", "bytes", "Write-ahead log that PostgreSQL keeps for the slot.", _CONNECTOR),
    gauge("supervise_heartbeat_age_seconds", "seconds", "Age of the connector's heartbeat.", _CONNECTOR),
)
