"""Each fault that can be planted into the facts is found by its check, and facts without a fault are left alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from connectors.config_file import read_connector_file
from connectors.doctor import connect as connect_checks
from connectors.doctor import kafka as kafka_checks
from connectors.doctor import postgres as postgres_checks
from connectors.doctor.examine import examine
from connectors.doctor.facts import (
    ConnectFacts,
    Facts,
    KafkaFacts,
    PostgresFacts,
    Publication,
    ReplicationSlot,
    Role,
    TopicState,
)
from connectors.doctor.findings import Severity
from connectors.doctor.kafka import INTERNAL
from connectors.doctor.postgres import CDC_ROLE, HEARTBEAT, OUTBOX, PRIVILEGES
from connectors.doctor.read_connect import read_worker_file
from connectors.doctor.settings import CONNECTOR, WORKER, Rule
from connectors.documents import UnusableFile
from connectors.model import ConnectorState, ConnectorStatus, TaskStatus
from connectors.outboxes.model import Share
from connectors.schema import DEBEZIUM_POSTGRES
from schemas.outboxes import CONNECTOR as NAME
from schemas.outboxes import NAME as SLOT
from schemas.topics import CONVERSATION_EVENTS, TOPICS
from tests.conftest import ROOT

CONFIG = dict(read_connector_file(ROOT / "connectors/configs/outbox.json").config)
SETTINGS = {
    "wal_level": "logical",
    "synchronous_commit": "on",
    "max_slot_wal_keep_size": "8192",
    "idle_replication_slot_timeout": "0",
    "wal_sender_timeout": "60000",
    "max_replication_slots": "10",
    "max_wal_senders": "10",
    "synchronized_standby_slots": "",
}
A_SLOT = ReplicationSlot(
    name=SLOT,
    is_logical=True,
    plugin="pgoutput",
    database="chat4all",
    is_active=True,
    reader=CDC_ROLE,
    wal_status="reserved",
    invalidation=None,
    is_failover=True,
    is_synced=False,
    held_bytes=100,
    lag_bytes=0,
)
A_PUBLICATION = Publication(False, frozenset({"insert", "update"}), {OUTBOX: None, HEARTBEAT: None})
A_ROLE = Role(frozenset({"login", "replication"}), frozenset(), PRIVILEGES)
POSTGRES = PostgresFacts(
    version=180006,
    database="chat4all",
    settings=SETTINGS,
    keep_bytes=8 * 1024**3,
    cdc_role=A_ROLE,
    publications={SLOT: A_PUBLICATION},
    slots={SLOT: A_SLOT},
    replica_identity={OUTBOX: "n", HEARTBEAT: "d"},
    triggers=(),
    oldest_prepared_seconds=0.0,
    heartbeat_ages={1: 2.0},
    standbys=0,
)
STATUS = ConnectorStatus(
    name=NAME,
    connector=ConnectorState(state="RUNNING", worker_id="w"),
    tasks=(TaskStatus(id=0, state="RUNNING", worker_id="w"),),
)
CONNECT = ConnectFacts(
    version="4.3.1",
    plugins={DEBEZIUM_POSTGRES: "3.7.0.Final", "io.debezium.transforms.outbox.EventRouter": "3.7.0.Final"},
    configs={NAME: CONFIG},
    statuses={NAME: STATUS},
    worker_settings=read_worker_file(ROOT / "infra/connect/connect-distributed.properties"),
)
KAFKA = KafkaFacts(
    brokers=3,
    broker_settings={"auto.create.topics.enable": "false", "unclean.leader.election.enable": "false"},
    topics={
        **{
            topic.name: TopicState(
                topic.partitions, 3, 0, {"cleanup.policy": "delete", "min.insync.replicas": "2", **topic.full_config()}
            )
            for topic in TOPICS
        },
        **{
            name: TopicState(1, 3, 0, {"cleanup.policy": "compact", "min.insync.replicas": "2"})
            for name in INTERNAL.values()
        },
    },
)
HEALTHY = Facts(POSTGRES, CONNECT, KAFKA)


def postgres(**changes: Any) -> Facts:
    return replace(HEALTHY, postgres=replace(POSTGRES, **changes))


def setting(name: str, value: str) -> Facts:
    return postgres(settings={**SETTINGS, name: value})


def slot(**changes: Any) -> Facts:
    return postgres(slots={SLOT: replace(A_SLOT, **changes)})


def publication(**changes: Any) -> Facts:
    return postgres(publications={SLOT: replace(A_PUBLICATION, **changes)})


def role(**changes: Any) -> Facts:
    return postgres(cdc_role=replace(A_ROLE, **changes))


def connect(**changes: Any) -> Facts:
    return replace(HEALTHY, connect=replace(CONNECT, **changes))


def topic(name: str, **changes: Any) -> Facts:
    state = KAFKA.topics[name]
    settings = {**state.settings, **changes.pop("settings", {})}
    topics = {**KAFKA.topics, name: replace(state, settings=settings, **changes)}
    return replace(HEALTHY, kafka=replace(KAFKA, topics=topics))


def without_topic(name: str) -> Facts:
    topics = {key: value for key, value in KAFKA.topics.items() if key != name}
    return replace(HEALTHY, kafka=replace(KAFKA, topics=topics))


def broker(**changes: str) -> Facts:
    named = {key.replace("_", "."): value for key, value in changes.items()}
    return replace(HEALTHY, kafka=replace(KAFKA, broker_settings={**KAFKA.broker_settings, **named}))


def status(state: str, task: str) -> ConnectorStatus:
    tasks = (TaskStatus(id=0, state=task, worker_id="w", trace="x.Y: broken"),)
    return ConnectorStatus(name=NAME, connector=ConnectorState(state=state, worker_id="w"), tasks=tasks)


def filters(*row_filters: str | None) -> dict[str, Publication]:
    return {
        SLOT if number == 0 else f"{SLOT}_{number}": replace(A_PUBLICATION, tables={OUTBOX: each, HEARTBEAT: None})
        for number, each in enumerate(row_filters)
    }


EVENTS = CONVERSATION_EVENTS.name
NO_INSERT = {**PRIVILEGES, HEARTBEAT: frozenset({"SELECT", "UPDATE"})}
TOO_MUCH = {**PRIVILEGES, "public.users": frozenset({"SELECT"})}
LOST = {"wal_status": "lost", "invalidation": "wal_removed"}
TWO_ON_ONE = {NAME: CONFIG, "twin": {**CONFIG, "name": "twin"}}

FAULTS: list[tuple[str, str, Severity, Callable[[], Facts]]] = [
    ("an old PostgreSQL", "postgres.version", Severity.ERROR, lambda: postgres(version=160004)),
    ("no logical WAL", "postgres.wal-level", Severity.ERROR, lambda: setting("wal_level", "replica")),
    (
        "lax commits",
        "postgres.synchronous-commit",
        Severity.WARNING,
        lambda: setting("synchronous_commit", "off"),
    ),
    ("endless WAL", "postgres.slot-keep-size", Severity.WARNING, lambda: postgres(keep_bytes=None)),
    ("little WAL", "postgres.slot-keep-size", Severity.WARNING, lambda: postgres(keep_bytes=1024)),
    (
        "idle slots end",
        "postgres.idle-slot-timeout",
        Severity.ERROR,
        lambda: setting("idle_replication_slot_timeout", "60"),
    ),
    ("dead readers stay", "postgres.sender-timeout", Severity.WARNING, lambda: setting("wal_sender_timeout", "0")),
    ("no room", "postgres.room-for-slots", Severity.WARNING, lambda: setting("max_replication_slots", "1")),
    ("no role", "postgres.role", Severity.ERROR, lambda: postgres(cdc_role=None)),
    ("no REPLICATION", "postgres.role", Severity.ERROR, lambda: role(attributes=frozenset({"login"}))),
    ("no INSERT", "postgres.role", Severity.ERROR, lambda: role(privileges=NO_INSERT)),
    ("too many rights", "postgres.role-excess", Severity.WARNING, lambda: role(privileges=TOO_MUCH)),
    (
        "too much power",
        "postgres.role-excess",
        Severity.WARNING,
        lambda: role(attributes=frozenset({"login", "replication", "createdb"})),
    ),
    ("a group", "postgres.role-excess", Severity.WARNING, lambda: role(member_of=frozenset({"pg_read_all_data"}))),
    ("no publication", "postgres.publication", Severity.ERROR, lambda: postgres(publications={})),
    ("no outbox", "postgres.publication", Severity.ERROR, lambda: publication(tables={HEARTBEAT: None})),
    ("all tables", "postgres.publication", Severity.ERROR, lambda: publication(is_for_all_tables=True)),
    (
        "a table more",
        "postgres.publication",
        Severity.WARNING,
        lambda: publication(tables={OUTBOX: None, HEARTBEAT: None, "public.users": None}),
    ),
    (
        "no inserts",
        "postgres.publication",
        Severity.ERROR,
        lambda: publication(operations=frozenset({"update"})),
    ),
    (
        "half the conversations",
        "postgres.publication-shares",
        Severity.ERROR,
        lambda: postgres(publications=filters(Share(0, 2).row_filter())),
    ),
    (
        "shares that overlap",
        "postgres.publication-shares",
        Severity.ERROR,
        lambda: postgres(publications=filters(Share(0, 2).row_filter(), None)),
    ),
    ("no slot", "postgres.slot", Severity.ERROR, lambda: postgres(slots={})),
    ("a lost slot", "postgres.slot", Severity.ERROR, lambda: slot(**LOST)),
    ("a slot that nobody reads", "postgres.slot", Severity.ERROR, lambda: slot(is_active=False, reader=None)),
    ("another reader", "postgres.slot", Severity.ERROR, lambda: slot(reader="somebody")),
    ("another plugin", "postgres.slot", Severity.ERROR, lambda: slot(plugin="test_decoding")),
    ("another database", "postgres.slot", Severity.ERROR, lambda: slot(database="postgres")),
    ("a slot in danger", "postgres.slot", Severity.ERROR, lambda: slot(wal_status="unreserved")),
    ("no failover", "postgres.slot", Severity.WARNING, lambda: slot(is_failover=False)),
    (
        "a forgotten slot",
        "postgres.stray-slot",
        Severity.WARNING,
        lambda: postgres(slots={SLOT: A_SLOT, "old": replace(A_SLOT, name="old", is_active=False)}),
    ),
    ("standbys unheeded", "postgres.failover", Severity.WARNING, lambda: postgres(standbys=1)),
    (
        "whole rows",
        "postgres.replica-identity",
        Severity.WARNING,
        lambda: postgres(replica_identity={OUTBOX: "f", HEARTBEAT: "d"}),
    ),
    (
        "no identity",
        "postgres.replica-identity",
        Severity.ERROR,
        lambda: postgres(replica_identity={OUTBOX: "n", HEARTBEAT: "n"}),
    ),
    ("a trigger", "postgres.triggers", Severity.WARNING, lambda: postgres(triggers=("t",))),
    (
        "an old prepared transaction",
        "postgres.prepared",
        Severity.WARNING,
        lambda: postgres(oldest_prepared_seconds=900.0),
    ),
    ("an old heartbeat", "postgres.heartbeat", Severity.ERROR, lambda: postgres(heartbeat_ages={1: 90.0})),
    ("no heartbeat", "postgres.heartbeat", Severity.ERROR, lambda: postgres(heartbeat_ages={})),
    ("an unseen heartbeat", "postgres.heartbeat", Severity.NOTE, lambda: postgres(heartbeat_ages=None)),
    ("an old Connect", "connect.version", Severity.WARNING, lambda: connect(version="2.8.0")),
    ("no plugin", "connect.plugin", Severity.ERROR, lambda: connect(plugins={})),
    (
        "an old plugin",
        "connect.plugin",
        Severity.WARNING,
        lambda: connect(plugins={**CONNECT.plugins, DEBEZIUM_POSTGRES: "2.7.4.Final"}),
    ),
    ("an unknown worker", "connect.worker-settings", Severity.NOTE, lambda: connect(worker_settings=None)),
    ("no connector", "connect.outboxes", Severity.ERROR, lambda: connect(configs={}, statuses={})),
    (
        "another slot",
        "connect.outboxes",
        Severity.ERROR,
        lambda: connect(configs={NAME: {**CONFIG, "slot.name": "other"}}),
    ),
    (
        "no heartbeat's table",
        "connect.outboxes",
        Severity.ERROR,
        lambda: connect(configs={NAME: {**CONFIG, "table.include.list": OUTBOX}}),
    ),
    ("two on one slot", "connect.shared-slot", Severity.ERROR, lambda: connect(configs=TWO_ON_ONE)),
    ("a failed task", "connect.running", Severity.ERROR, lambda: connect(statuses={NAME: status("RUNNING", "FAILED")})),
    ("paused", "connect.running", Severity.ERROR, lambda: connect(statuses={NAME: status("PAUSED", "PAUSED")})),
    (
        "not started",
        "connect.running",
        Severity.WARNING,
        lambda: connect(statuses={NAME: status("RUNNING", "UNASSIGNED")}),
    ),
    ("no topic", "kafka.topics", Severity.ERROR, lambda: without_topic(EVENTS)),
    ("other partitions", "kafka.topics", Severity.ERROR, lambda: topic(EVENTS, partitions=24)),
    ("compacted events", "kafka.topics", Severity.ERROR, lambda: topic(EVENTS, settings={"cleanup.policy": "compact"})),
    ("short retention", "kafka.topics", Severity.WARNING, lambda: topic(EVENTS, settings={"retention.ms": "1000"})),
    (
        "the producer's clock",
        "kafka.topics",
        Severity.WARNING,
        lambda: topic(EVENTS, settings={"message.timestamp.type": "CreateTime"}),
    ),
    ("few copies", "kafka.copies", Severity.WARNING, lambda: topic(EVENTS, copies=1)),
    ("a copy behind", "kafka.copies", Severity.WARNING, lambda: topic(EVENTS, out_of_sync=1)),
    ("lax writes", "kafka.copies", Severity.WARNING, lambda: topic(EVENTS, settings={"min.insync.replicas": "1"})),
    ("one broker", "kafka.copies", Severity.NOTE, lambda: replace(HEALTHY, kafka=replace(KAFKA, brokers=1))),
    (
        "no internal topic",
        "kafka.connect-topics",
        Severity.ERROR,
        lambda: without_topic(INTERNAL["offset.storage.topic"]),
    ),
    (
        "forgetful Connect",
        "kafka.connect-topics",
        Severity.ERROR,
        lambda: topic(INTERNAL["offset.storage.topic"], settings={"cleanup.policy": "delete"}),
    ),
    (
        "configurations out of order",
        "kafka.connect-topics",
        Severity.ERROR,
        lambda: topic(INTERNAL["config.storage.topic"], partitions=3),
    ),
    ("topics by accident", "kafka.brokers", Severity.WARNING, lambda: broker(auto_create_topics_enable="true")),
    ("leaders that lack", "kafka.brokers", Severity.ERROR, lambda: broker(unclean_leader_election_enable="true")),
    (
        "PostgreSQL away",
        "postgres.reachable",
        Severity.ERROR,
        lambda: Facts(None, CONNECT, KAFKA, {"postgres": "It does not answer."}),
    ),
    (
        "Connect away",
        "connect.reachable",
        Severity.ERROR,
        lambda: Facts(POSTGRES, None, KAFKA, {"connect": "It does not answer."}),
    ),
    (
        "Kafka away",
        "kafka.reachable",
        Severity.ERROR,
        lambda: Facts(POSTGRES, CONNECT, None, {"kafka": "It does not answer."}),
    ),
]


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    assert examine(HEALTHY).findings == ()


@pytest.mark.parametrize(("check", "severity", "plant"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS])
def test_a_planted_fault_is_found(check: str, severity: Severity, plant: Callable[[], Facts]) -> None:
    found = [finding for finding in examine(plant()).findings if finding.check == check]

    assert severity in {finding.problem.severity for finding in found}
    for finding in found:
        assert finding.problem.sentence.endswith(".")
        assert finding.problem.fix.endswith(".")


def test_every_check_has_a_planted_fault() -> None:
    checks = {check.name for check in (*connect_checks.CHECKS, *kafka_checks.CHECKS)}
    checks |= {check.name for check in postgres_checks.CHECKS}

    assert checks - {"connect.connector-settings"} <= {fault[1] for fault in FAULTS}


@pytest.mark.parametrize("rule", [*CONNECTOR, *WORKER], ids=lambda rule: rule.key)
def test_a_setting_that_loses_or_delays_events_is_found(rule: Rule) -> None:
    value = "86400000" if rule.most is not None else "" if not rule.best else "something else"
    if rule in CONNECTOR:
        facts = connect(configs={NAME: {**CONFIG, rule.key: value}})
    else:
        facts = connect(worker_settings={**(CONNECT.worker_settings or {}), rule.key: value})

    found = [finding for finding in examine(facts).findings if rule.key in finding.problem.sentence]

    assert [finding.problem.severity for finding in found] == [rule.severity]


def test_what_debezium_and_connect_do_by_default_is_found() -> None:
    bare = {key: CONFIG[key] for key in ("name", "connector.class", "slot.name", "publication.name")}

    found = examine(connect(configs={NAME: bare}, worker_settings={})).findings

    told = " ".join(finding.problem.sentence for finding in found)
    for key in ("offset.mismatch.strategy", "poll.interval.ms", "heartbeat.interval.ms", "offset.flush.interval.ms"):
        assert key in told


def test_the_worst_comes_first() -> None:
    facts = replace(setting("wal_level", "minimal"), connect=replace(CONNECT, worker_settings=None))

    severities = [finding.problem.severity for finding in examine(facts).findings]

    assert severities == sorted(severities, reverse=True)
    assert set(severities) == {Severity.ERROR, Severity.NOTE}


def test_several_outboxes_that_share_everything_between_them_are_right() -> None:
    names = [SLOT, f"{SLOT}_1"]
    facts = postgres(
        publications=filters(Share(0, 2).row_filter(), Share(1, 2).row_filter()),
        slots={name: replace(A_SLOT, name=name) for name in names},
        heartbeat_ages={1: 1.0, 2: 1.0},
    )
    second = {
        **CONFIG,
        "name": f"{NAME}-1",
        "slot.name": names[1],
        "publication.name": names[1],
        "heartbeat.action.query": CONFIG["heartbeat.action.query"].replace("(1)", "(2)"),
    }

    assert examine(replace(facts, connect=replace(CONNECT, configs={NAME: CONFIG, f"{NAME}-1": second}))).findings == ()


def test_a_worker_file_that_cannot_be_read_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UnusableFile, match="cannot be read"):
        read_worker_file(tmp_path / "absent.properties")
