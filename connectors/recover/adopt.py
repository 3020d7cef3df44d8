"""Makes a lost or missing slot anew and lets its connector begin there. `judge` decides; the rest does it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from connectors.config_file import TargetState
from connectors.connect import ConnectClient, ConnectError, Deadline, UnknownConnector
from connectors.model import Verdict
from connectors.sessions import Session
from connectors.slots import Slot
from schemas.outboxes import NAME, Outbox, find_outbox

POLL_SECONDS = 0.25
Say = Callable[[str], None]

READ_OUTBOXES = """
    SELECT pubname, slot_name, coalesce(active, false), coalesce(wal_status, 'lost'),
           coalesce(pg_wal_lsn_diff(confirmed_flush_lsn, '0/0'), 0)::bigint,
           coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn), 0)::bigint,
           coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::bigint, active_pid
    FROM pg_publication LEFT JOIN pg_replication_slots ON slot_name = pubname
    WHERE starts_with(pubname, %s)
    ORDER BY pubname
"""
RENEW = "SELECT renew_outbox_slot(%s)"


class NotStreaming(ConnectError):
    """A slot has not got, within the time there was, to where it must; the message says what it waits for."""


@dataclass(frozen=True, slots=True)
class OutboxState:
    """An outbox and its slot; None when there is no slot. `committed_lsn`: how far its connector says that it has
    read, None when it says nothing."""

    outbox: Outbox
    slot: Slot | None
    committed_lsn: int | None


def judge(state: OutboxState) -> str | None:
    """Why the slot must be adopted (made anew where needed, and its connector's offsets forgotten), as the end of a
    sentence; None when the connector can go on with what it has."""
    if state.slot is None:
        return "is missing"
    if state.slot.is_lost:
        return "is lost: its write-ahead log was removed"
    if state.committed_lsn is not None and not state.slot.is_active and state.slot.confirmed_lsn > state.committed_lsn:
        return "is younger than what its connector has read: it was made anew"
    return None


def read_outboxes(session: Session, client: ConnectClient) -> list[OutboxState]:
    """Every outbox, by number. Raises DatabaseUnreachable, ConnectError."""
    found = []
    for name, slot_name, active, wal_status, confirmed, lag, held, pid in session.execute(READ_OUTBOXES, (NAME,)):
        outbox = find_outbox(name)
        if outbox is not None:
            slot = Slot(name, active, wal_status, confirmed, lag, held, pid) if slot_name else None
            found.append(OutboxState(outbox, slot, _committed_lsn(client, outbox)))
    return sorted(found, key=lambda state: state.outbox.number)


def _committed_lsn(client: ConnectClient, outbox: Outbox) -> int | None:
    try:
        offsets = client.get_offsets(outbox.connector)
    except UnknownConnector:
        return None
    found = [each.offset["lsn"] for each in offsets if each.offset and isinstance(each.offset.get("lsn"), int)]
    return max(found, default=None)


def adopt(session: Session, client: ConnectClient, outbox: Outbox, deadline: Deadline, say: Say) -> None:
    """Stops the connector, makes the slot anew unless it can be read, forgets the connector's offsets, and lets it run.
    May be repeated. Raises DatabaseUnreachable, ConnectError."""
    client.set_state(outbox.connector, TargetState.stopped)
    _wait(
        lambda: (
            client.get_status(outbox.connector).connector.state == "STOPPED"
            and not client.get_status(outbox.connector).tasks
            and not _slot_is_active(session, outbox)
        ),
        deadline,
        f"{outbox.connector} to stop",
    )
    row = session.execute(RENEW, (outbox.slot,)).fetchone()
    say(f"slot {outbox.slot}: {row[0] if row else 'kept'}")
    client.reset_offsets(outbox.connector)
    client.set_state(outbox.connector, TargetState.running)
    say(f"connector {outbox.connector}: offsets forgotten, started")
    wait_streaming(session, client, outbox, deadline)


def wait_streaming(session: Session, client: ConnectClient, outbox: Outbox, deadline: Deadline) -> None:
    """Returns once the connector reads its slot."""
    _wait(
        lambda: client.get_status(outbox.connector).verdict() is Verdict.RUNNING and _slot_is_active(session, outbox),
        deadline,
        f"{outbox.connector} to read its slot",
    )


def wait_passed(session: Session, outbox: Outbox, lsn: int, deadline: Deadline) -> None:
    """Returns once all that was committed before this position has reached Kafka. The heartbeat carries a quiet slot
    past it."""
    query = "SELECT pg_wal_lsn_diff(confirmed_flush_lsn, '0/0')::bigint FROM pg_replication_slots WHERE slot_name = %s"

    def has_passed() -> bool:
        row = session.execute(query, (outbox.slot,)).fetchone()
        return row is not None and row[0] is not None and row[0] >= lsn

    _wait(has_passed, deadline, f"slot {outbox.slot} to be read up to here (does {outbox.connector} run?)")


def _slot_is_active(session: Session, outbox: Outbox) -> bool:
    query = "SELECT active FROM pg_replication_slots WHERE slot_name = %s"
    row = session.execute(query, (outbox.slot,)).fetchone()
    return row is not None and bool(row[0])


def _wait(is_so: Callable[[], bool], deadline: Deadline, what: str) -> None:
    while not is_so():
        if not deadline.pause(POLL_SECONDS):
            raise NotStreaming(f"Waited {deadline.seconds:g} s for {what}.")
