"""Settings that are known to lose or to delay events, each with why and the remedy. Data, and how it is applied.

Sources: the reference of Debezium's PostgreSQL connector and of its Outbox Event Router, Kafka's of the producer and of
Connect's worker; and what was measured (docs/benchmarks.md)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from connectors.doctor.findings import Problem, Severity

STRING = "org.apache.kafka.connect.storage.StringConverter"
ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE


class Rule(NamedTuple):
    """What a setting should be. `default` holds where it is not set. `best` is what to set (empty: anything will do);
    `good`, other values that do; `most`: as a number it may be up to this. `why` is what happens otherwise."""

    key: str
    default: str
    severity: Severity
    best: str
    why: str
    good: tuple[str, ...] = ()
    most: int | None = None

    def is_kept(self, value: str) -> bool:
        """Whether the value does."""
        if not self.best:
            return bool(value.strip())
        if self.most is not None:
            return value.isdigit() and 0 < int(value) <= self.most
        return value.lower() in (self.best.lower(), *self.good)


CONNECTOR = (
    Rule("errors.tolerance", "none", ERROR, "none", "records that cannot be converted are lost in silence"),
    Rule(
        "event.processing.failure.handling.mode",
        "fail",
        ERROR,
        "fail",
        "events that cannot be read are lost in silence",
    ),
    Rule("slot.drop.on.stop", "false", ERROR, "false", "what is written between a stop and the next start is lost"),
    Rule(
        "offset.mismatch.strategy",
        "no_validation",
        ERROR,
        "trust_offset",
        "a slot that was made anew is read as if nothing were missing",
    ),
    Rule("plugin.name", "decoderbufs", ERROR, "pgoutput", "PostgreSQL brings pgoutput and nothing else"),
    Rule("skipped.operations", "t", ERROR, "t", "inserts may be among what is skipped", good=("none",)),
    Rule(
        "lsn.flush.mode",
        "connector",
        ERROR,
        "connector",
        "the slot may never be told what was read, and holds the write-ahead log until it is lost",
        good=("connector_and_driver",),
    ),
    Rule(
        "producer.override.acks", "all", ERROR, "all", "a record that one broker has may be lost with it", good=("-1",)
    ),
    Rule(
        "producer.override.max.in.flight.requests.per.connection",
        "1",
        ERROR,
        "1",
        "a batch that is sent again may come after the next one, so seqs are out of order",
    ),
    Rule(
        "transforms.outbox.table.expand.json.payload",
        "false",
        ERROR,
        "false",
        "payloads are encoded anew, without nulls and empty arrays",
    ),
    Rule("value.converter", "", ERROR, STRING, "payloads are not the text that was stored"),
    Rule("key.converter", "", ERROR, STRING, "keys are not conversation:{id}, and conversations not in one partition"),
    Rule("header.converter", "", ERROR, STRING, "headers are not the text that stream apps read"),
    Rule(
        "publication.autocreate.mode",
        "all_tables",
        WARNING,
        "disabled",
        "a publication that is missing is made for all tables, users and passwords too",
    ),
    Rule("slot.failover", "false", WARNING, "true", "a standby that takes over has no slot, and events are lost"),
    Rule(
        "transforms.outbox.table.op.invalid.behavior",
        "warn",
        WARNING,
        "fatal",
        "an UPDATE of an outbox row is passed over with a line in a log",
    ),
    Rule("snapshot.mode", "initial", WARNING, "no_data", "the outbox is empty, and looking for rows in it takes time"),
    Rule(
        "provide.transaction.metadata", "false", WARNING, "false", "two records more per transaction, that nobody reads"
    ),
    Rule(
        "heartbeat.interval.ms", "0", WARNING, "5000", "a slot stands still while only other tables change", most=60_000
    ),
    Rule("heartbeat.action.query", "", WARNING, "", "a heartbeat that writes nothing does not move the slot"),
    Rule("poll.interval.ms", "500", WARNING, "10", "that long a record may wait", most=50),
    Rule("max.batch.size", "2048", WARNING, "1", "a record waits for the next poll unless the batch is full", most=16),
    Rule("producer.override.linger.ms", "5", NOTE, "0", "that long a record waits for others", good=()),
    Rule(
        "retriable.restart.connector.wait.ms",
        "10000",
        WARNING,
        "10000",
        "that long nothing is tried again",
        most=30_000,
    ),
)

WORKER = (
    Rule(
        "connector.client.config.override.policy",
        "all",
        ERROR,
        "All",
        "connectors may not set their producer's acks and linger",
    ),
    Rule(
        "scheduled.rebalance.max.delay.ms",
        "300000",
        WARNING,
        "5000",
        "tasks of a worker that vanished wait that long for another",
        most=15_000,
    ),
    Rule(
        "offset.flush.interval.ms",
        "60000",
        WARNING,
        "1000",
        "that much is sent again after a crash, and slots are let go that late",
        most=5000,
    ),
    Rule("topic.creation.enable", "true", WARNING, "false", "a slip in a topic's name makes a topic that nobody reads"),
    Rule("plugin.discovery", "hybrid_warn", NOTE, "service_load", "a worker starts more slowly", good=("only_scan",)),
)


def broken(rules: tuple[Rule, ...], settings: Mapping[str, str], whose: str) -> Iterator[Problem]:
    """A problem per rule that is not kept. `whose`: `the connector x`."""
    for rule in rules:
        value = settings.get(rule.key, rule.default)
        if not rule.is_kept(value):
            said = f"is {value}" if rule.key in settings else f"is not set, which means {value or 'nothing useful'}"
            to = f"set it to {rule.best}" if rule.best else "set it as connectors/configs/outbox.json does"
            yield Problem(rule.severity, f"{whose}: {rule.key} {said}: {rule.why}.", f"{to}, and apply.")
