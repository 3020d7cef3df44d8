"""What PostgreSQL shows of a connector's replication slot and heartbeat, and which of them a connector uses. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from connectors.model import Config, is_reference
from connectors.schema import DEBEZIUM_POSTGRES

_BEAT = re.compile(
    r"insert\s+into\s+(?:public\.)?cdc_heartbeat\s*\(\s*id\s*\)\s*values\s*\(\s*(\d+)\s*\)", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Slot:
    """A replication slot. Positions are bytes of the write-ahead log since its beginning; `lag_bytes` is what is
    written and not confirmed to have reached Kafka, `held_bytes` what PostgreSQL keeps for it. `wal_status`: reserved,
    extended, unreserved or lost."""

    name: str
    is_active: bool
    wal_status: str
    confirmed_lsn: int
    lag_bytes: int
    held_bytes: int
    active_pid: int | None = None

    @property
    def is_lost(self) -> bool:
        """Whether what it has not streamed is gone."""
        return self.wal_status == "lost"


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    """The slots by name, the ages of the heartbeats (seconds, by the id of their row in cdc_heartbeat), how far the
    write-ahead log was written (bytes) when they were read, and how many transactions ago the oldest transaction id
    was given that is not frozen (PostgreSQL's manual, "Preventing Transaction ID Wraparound Failures")."""

    current_lsn: int
    transaction_id_age: int
    slots: Mapping[str, Slot] = field(default_factory=dict)
    heartbeat_ages: Mapping[int, float] = field(default_factory=dict)


def slot_name(config: Config) -> str | None:
    """The slot that a connector with these settings reads; None if it is none of Debezium's for PostgreSQL, or
    nothing but Connect can tell."""
    name = config.get("slot.name", "debezium")
    return name if config.get("connector.class") == DEBEZIUM_POSTGRES and not is_reference(name) else None


def heartbeat_id(config: Config) -> int | None:
    """The id of the row in cdc_heartbeat that a connector with these settings writes; None if it writes none."""
    found = _BEAT.search(config.get("heartbeat.action.query", ""))
    return int(found[1]) if found else None


def heartbeat_seconds(config: Config) -> float:
    """How often a connector with these settings beats; 0 if it does not."""
    text = config.get("heartbeat.interval.ms", "0")
    return int(text) / 1000 if text.isdigit() else 0.0


def parse_lsn(text: str) -> int:
    """A position as PostgreSQL writes it (`16/B374D848`) or as Debezium does (a whole number). Raises ValueError."""
    if re.fullmatch(r"[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}", text):
        high, _, low = text.partition("/")
        return (int(high, 16) << 32) + int(low, 16)
    if re.fullmatch(r"\d{1,19}", text):
        return int(text)
    raise ValueError("A position is written as 16/B374D848, or as a whole number.")


def format_lsn(position: int) -> str:
    """The position as PostgreSQL writes it."""
    return f"{position >> 32:X}/{position & 0xFFFFFFFF:X}"


def format_bytes(count: int) -> str:
    """A number of bytes for people."""
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
