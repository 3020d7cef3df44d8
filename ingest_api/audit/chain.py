"""The chain: each entry's hash covers the entry and the hash before it. Pure; the encoding is the same as that of the
SQL function audit_entry_hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

GENESIS = bytes(32)
"""The hash before the first entry."""


class AuditEntry(NamedTuple):
    """A row of the audit log. `actor_id` is a user's id or a client's, None when nobody is known; `detail` is JSON
    text."""

    position: int
    occurred_at: datetime
    action: str
    actor_id: str | None
    detail: str
    previous_hash: bytes
    entry_hash: bytes


class Fault(NamedTuple):
    """Something that an honest log cannot show, and where."""

    position: int
    sentence: str


def entry_hash(entry: AuditEntry, previous_hash: bytes) -> bytes:
    """SHA-256 over the hash before and the entry's members as netstrings: position, time (UTC, ISO 8601 with
    microseconds), action, actor ('' for None), detail."""
    occurred_at = entry.occurred_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    parts = (str(entry.position), occurred_at, entry.action, entry.actor_id or "", entry.detail)
    encoded = b"".join(b"%d:%b," % (len(part), part) for part in (text.encode() for text in parts))
    return hashlib.sha256(previous_hash + encoded).digest()


@dataclass(slots=True)
class ChainCheck:
    """Reads entries in the order of their positions and tells what is wrong with them. It starts at the first entry,
    or behind one whose hash is known."""

    position: int = 0
    head: bytes = GENESIS
    is_head_known: bool = True

    def read(self, entry: AuditEntry) -> Iterator[Fault]:
        """The faults of the next entry."""
        if entry.position != self.position + 1:
            missing = f"{self.position + 1} to {entry.position - 1}"
            yield Fault(entry.position, f"entries are missing before this one: {missing}")
        elif self.is_head_known and entry.previous_hash != self.head:
            yield Fault(entry.position, "it does not follow the entry before it")
        if entry.entry_hash != entry_hash(entry, entry.previous_hash):
            yield Fault(entry.position, "it was changed: its hash does not match what it says")
        self.position, self.head, self.is_head_known = entry.position, entry.entry_hash, True
