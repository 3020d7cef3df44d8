"""What the doctor knows of the three servers. Data; read by read_*.py, judged by the checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from connectors.model import Config, ConnectorStatus


@dataclass(frozen=True, slots=True)
class Role:
    """A role of PostgreSQL: its attributes that give power (`superuser` …), the roles that it is in, and its privileges
    on tables of the schema public (`SELECT` …)."""

    attributes: frozenset[str]
    member_of: frozenset[str]
    privileges: Mapping[str, frozenset[str]]


@dataclass(frozen=True, slots=True)
class Publication:
    """A publication: its tables (schema.table) with their row filters, and what it publishes (`insert` …)."""

    is_for_all_tables: bool
    operations: frozenset[str]
    tables: Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class ReplicationSlot:
    """A replication slot. Bytes are of the write-ahead log; `reader` is the role of who reads it now."""

    name: str
    is_logical: bool
    plugin: str | None
    database: str | None
    is_active: bool
    reader: str | None
    wal_status: str | None
    invalidation: str | None
    is_failover: bool
    is_synced: bool
    held_bytes: int
    lag_bytes: int


@dataclass(frozen=True, slots=True)
class PostgresFacts:
    """PostgreSQL's side. `version`: 180006 for 18.6. `settings` as SHOW gives them. `replica_identity`: by table; d
    default, f full, n nothing, i index. `heartbeat_ages`: seconds, by row; None if they may not be read."""

    version: int
    database: str
    settings: Mapping[str, str]
    keep_bytes: int | None
    cdc_role: Role | None
    publications: Mapping[str, Publication]
    slots: Mapping[str, ReplicationSlot]
    replica_identity: Mapping[str, str]
    triggers: tuple[str, ...]
    oldest_prepared_seconds: float
    heartbeat_ages: Mapping[int, float] | None
    standbys: int


@dataclass(frozen=True, slots=True)
class ConnectFacts:
    """Kafka Connect's side. `worker_settings`: the worker's properties file, None when it was not given."""

    version: str
    plugins: Mapping[str, str | None]
    configs: Mapping[str, Config]
    statuses: Mapping[str, ConnectorStatus]
    worker_settings: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic as Kafka has it. `copies`: the fewest that a partition is meant to have; `out_of_sync`: partitions with a
    copy that is behind."""

    partitions: int
    copies: int
    out_of_sync: int
    settings: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class KafkaFacts:
    """Kafka's side."""

    brokers: int
    broker_settings: Mapping[str, str]
    topics: Mapping[str, TopicState]


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is known. A server that could not be read is None; `unread` says why, in sentences, by its name."""

    postgres: PostgresFacts | None = None
    connect: ConnectFacts | None = None
    kafka: KafkaFacts | None = None
    unread: Mapping[str, str] = field(default_factory=dict)
