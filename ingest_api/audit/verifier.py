"""Reads the whole audit log and tells what is wrong with it, in constant memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import psycopg

from ingest_api.audit.chain import GENESIS, AuditEntry, ChainCheck, Fault
from ingest_api.audit.heads import SignedHeads

_ENTRIES = (
    "SELECT position, occurred_at, action, actor_id, detail, previous_hash, entry_hash FROM audit_log"
    " WHERE position >= %s ORDER BY position"
)
_HEAD = "SELECT position, entry_hash FROM audit_head"


@dataclass(slots=True)
class Report:
    """What was read, and what was found."""

    entries: int = 0
    position: int = 0
    heads: int = 0
    unknown_keys: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)


def verify_log(
    connection: psycopg.Connection[tuple[Any, ...]],
    heads: SignedHeads | None,
    *,
    first: int = 1,
    most_faults: int = 1000,
) -> Report:
    """Checks the entries from position `first` on: the chain, the head that the database keeps, and the signed heads.
    One snapshot, so that entries which are added meanwhile do not matter. Raises psycopg.Error."""
    report = Report()
    check = ChainCheck(first - 1, GENESIS, is_head_known=first == 1)
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        for fault in _read(connection, check, heads, report, first):
            report.faults.append(fault)
            if len(report.faults) >= most_faults:
                break
    report.position = check.position
    if heads is not None:
        report.heads, report.unknown_keys = heads.count, sorted(heads.unknown_keys)
    return report


def _read(
    connection: psycopg.Connection[tuple[Any, ...]],
    check: ChainCheck,
    heads: SignedHeads | None,
    report: Report,
    first: int,
) -> Iterator[Fault]:
    if heads is not None:
        yield from heads.faults
    with connection.cursor(name="audit_log") as cursor:
        cursor.itersize = 2000
        for row in cursor.execute(_ENTRIES, (first,)):
            entry = AuditEntry(*row)
            report.entries += 1
            yield from check.read(entry)
            if heads is not None:
                yield from heads.read(entry.position, entry.entry_hash)
    kept = connection.execute(_HEAD).fetchone()
    if kept is None:
        yield Fault(check.position, "the row that keeps the newest position and hash is gone")
    elif kept[0] != check.position or (check.is_head_known and kept[1] != check.head):
        yield Fault(
            kept[0], f"the head is kept at {kept[0]}, but the log ends at {check.position} or with another hash"
        )
    if heads is not None:
        yield from heads.finish(check.position, first=first)
