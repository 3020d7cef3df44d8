"""Why a task failed, read from its trace, and what is done about each cause. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum


class Cause(StrEnum):
    """The causes that are told apart, because something else is done about each."""

    slot_lost = "slot-lost"
    slot_recreated = "slot-recreated"
    slot_missing = "slot-missing"
    slot_held = "slot-held"
    invalid_operation = "invalid-operation"
    bad_credentials = "bad-credentials"
    missing_privilege = "missing-privilege"
    publication_missing = "publication-missing"
    plugin_missing = "plugin-missing"
    record_too_large = "record-too-large"
    database_away = "database-away"
    kafka_away = "kafka-away"
    unknown = "unknown"
    stalled = "stalled"
    not_assigned = "not-assigned"
    not_there = "not-there"


@dataclass(frozen=True, slots=True)
class Policy:
    """What is done: the first try after `first_seconds`, each further one after twice as long, at most
    `cap_seconds`; never, when that is None. `advice` is for the person who is needed once `patience` tries have not
    helped."""

    first_seconds: float
    cap_seconds: float | None
    advice: str
    patience: int = 0


POLICIES = {
    Cause.slot_lost: Policy(
        0, None, "its replication slot is lost, and with it records: run `chat4all-connectors recover`"
    ),
    Cause.slot_recreated: Policy(
        0,
        None,
        "its replication slot is another than the one that it has read up to now, so records in between may be"
        " missing: run `chat4all-connectors recover`",
    ),
    Cause.slot_missing: Policy(
        0,
        None,
        "its replication slot does not exist, and what was written meanwhile was not streamed: run"
        " `chat4all-connectors recover`",
    ),
    Cause.slot_held: Policy(
        1, 8, "another session reads its replication slot: find out who, by pg_stat_replication", patience=5
    ),
    Cause.invalid_operation: Policy(
        0.5, 30, "invalid operations on the outbox go on: find out who writes to that table", patience=5
    ),
    Cause.bad_credentials: Policy(
        5, 60, "PostgreSQL refuses its login: compare CHAT4ALL_CDC_DATABASE_* of Connect with the role's password"
    ),
    Cause.missing_privilege: Policy(
        5, 60, "its role lacks a right: run `python -m ingest_api.migrate`, which grants what is needed"
    ),
    Cause.publication_missing: Policy(
        5, 60, "its publication does not exist: run `python -m ingest_api.migrate`, which makes it"
    ),
    Cause.plugin_missing: Policy(
        30, 300, "Connect does not have its connector class: install the plugin into plugin.path and restart Connect"
    ),
    Cause.record_too_large: Policy(
        30, 300, "Kafka refuses a record as too large: raise max.message.bytes of the topic and max.request.size"
    ),
    Cause.database_away: Policy(
        1, 8, "it does not reach PostgreSQL, which answers here: look at its address", patience=8
    ),
    Cause.kafka_away: Policy(
        1, 15, "it does not reach Kafka, or a topic does not exist: look at Connect's log", patience=8
    ),
    Cause.unknown: Policy(1, 60, "it fails again and again, for the reason that the log has as detail", patience=5),
    Cause.stalled: Policy(
        1,
        300,
        "it says that it runs, does nothing, and restarts do not help: look at Connect's log (a topic that does not"
        " exist, a Kafka that does not answer, a slot that another session reads)",
        patience=3,
    ),
    Cause.not_assigned: Policy(1, 300, "Connect gives its task to no worker: look at the workers' logs", patience=3),
    Cause.not_there: Policy(
        0, None, "Connect does not hold it: run `chat4all-connectors apply` if that is not meant to be"
    ),
}

# The first that is found in the trace counts, so what is more particular stands first.
_SIGNS = (
    (Cause.slot_lost, r"can no longer (?:get changes from|access) replication slot|slot has been invalidated"),
    (Cause.slot_lost, r"requested WAL segment .* has already been removed"),
    (Cause.slot_lost, r"has been removed from the database write-ahead log"),
    (Cause.slot_recreated, r"Cannot seek to the last known offset|cannot advance replication slot"),
    (Cause.slot_recreated, r"trying to read change stream starting at .* no longer available on the server"),
    (Cause.slot_missing, r'replication slot "[^"]*" does not exist'),
    (Cause.slot_held, r'replication slot "[^"]*" is active for PID'),
    (Cause.invalid_operation, r"Unexpected \w+ message received"),
    (
        Cause.bad_credentials,
        r"password authentication failed|no pg_hba\.conf entry|role \"[^\"]*\" (?:does not exist|is not permitted)",
    ),
    (Cause.missing_privilege, r"permission denied|must be superuser or replication role|insufficient privilege"),
    (Cause.publication_missing, r'Publication autocreation is disabled|publication "[^"]*" does not exist'),
    (Cause.plugin_missing, r"Failed to find any class that implements|ClassNotFoundException|NoClassDefFoundError"),
    (Cause.record_too_large, r"RecordTooLargeException|RecordBatchTooLargeException"),
    (
        Cause.database_away,
        r"Connection (?:to \S+ )?refused|the database system is (?:starting up|shutting down|in recovery)"
        r"|terminating connection due to|Database connection failed|connection attempt failed"
        r"|PSQLException: (?:An I/O error|This connection has been closed)|EOFException|SocketException"
        r"|UnknownHostException|SocketTimeoutException|too many (?:connections|clients)|server closed the connection",
    ),
    (
        Cause.kafka_away,
        r"org\.apache\.kafka\.common\.errors\.(?:Timeout|NotEnoughReplicas|Disconnect|Network|UnknownTopicOrPartition)",
    ),
)


def classify(trace: str | None) -> Cause:
    """The cause that a Java stack trace gives away."""
    text = trace or ""
    return next((cause for cause, sign in _SIGNS if re.search(sign, text)), Cause.unknown)


def delay_seconds(policy: Policy, attempts: int, jitter: float) -> float | None:
    """How long to wait before the next try, after this many; None for never. `jitter` (0 to 1) takes up to half of it
    away, so that many connectors do not come back in step."""
    if policy.cap_seconds is None:
        return None
    full = min(policy.first_seconds * 2.0 ** min(attempts, 20), policy.cap_seconds)
    return full * (1 - jitter / 2)
