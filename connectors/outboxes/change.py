"""Makes the outboxes as many as are declared, while the API takes no writes for some seconds and loses none.

The order of it keeps each conversation's: what was written before the change has reached Kafka before anything that
comes after it can be streamed by another connector."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from psycopg.errors import ObjectInUse

from connectors.connect import ConnectClient, ConnectError, Deadline, UnknownConnector
from connectors.hold import writes_held
from connectors.outboxes.model import Share, missing_and_surplus
from connectors.recover.adopt import READ_OUTBOXES, wait_passed
from connectors.sessions import Session
from schemas.outboxes import NAME, Outbox, find_outbox

Say = Callable[[str], None]
POLL_SECONDS = 0.25

READ_STREAMED = """
    SELECT pubname FROM pg_publication JOIN pg_publication_rel ON prpubid = pg_publication.oid
    WHERE prrelid = 'public.outbox'::regclass
"""
WHERE_WE_ARE = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint"
DROP_SLOT = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s"


class NotReady(ConnectError):
    """The outboxes that there are do not all stream, so what they hold cannot be waited for."""


def read_present(session: Session) -> list[Outbox]:
    """The outboxes that stream a share now, by number."""
    found = (find_outbox(name) for (name,) in session.execute(READ_STREAMED))
    return sorted(outbox for outbox in found if outbox is not None)


def change(session: Session, total: int, wait_seconds: float, say: Say) -> None:
    """Brings PostgreSQL from as many outboxes as there are to `total`: publications, slots, and who streams what. Their
    connectors are the caller's to start afterwards; slots keep everything for them. `session` is the owner's. Changes
    nothing if what was written does not reach Kafka in time. Raises NotReady, NotStreaming, AlreadyHeld."""
    present = read_present(session)
    _require_streaming(session, present)
    added, surplus = missing_and_surplus(present, total)
    with writes_held(session, say), _prepared(session, added, wait_seconds, say), session.transaction():
        session.execute("LOCK TABLE outbox IN EXCLUSIVE MODE")  # whoever writes has ended, and whoever wants to waits
        position = _one(session, WHERE_WE_ARE)
        for outbox in present:
            wait_passed(session, outbox, position, Deadline(wait_seconds))
        for number in range(total):
            _stream(session, Outbox(number), Share(number, total))
        for outbox in surplus:
            session.execute(f"ALTER PUBLICATION {outbox.slot} SET TABLE cdc_heartbeat".encode())
    say(f"conversations are shared between {total} outboxes from now on")


def remove_surplus(session: Session, client: ConnectClient, total: int, deadline: Deadline, say: Say) -> None:
    """Takes away connectors, slots and publications of outboxes beyond `total`, which stream nothing any more."""
    for name, *_ in session.execute(READ_OUTBOXES, (NAME,)).fetchall():
        outbox = find_outbox(name)
        if outbox is None or outbox.number < total:
            continue
        with suppress(UnknownConnector):
            client.delete(outbox.connector)
        _drop(session, outbox, deadline)
        say(f"removed {outbox.connector}, its slot and its publication")


@contextmanager
def _prepared(session: Session, added: Sequence[Outbox], wait_seconds: float, say: Say) -> Iterator[None]:
    """Empty publications and slots for the new outboxes. Slots before anything is streamed by them, since what is
    written before a slot exists is never streamed; gone again if the block fails."""
    try:
        for outbox in added:
            _drop(session, outbox, Deadline(wait_seconds))  # what is left of a change that was cut off
            session.execute(f"CREATE PUBLICATION {outbox.slot} WITH (publish = 'insert, update')".encode())
            session.execute("SELECT renew_outbox_slot(%s)", (outbox.slot,))
            say(f"made the publication and the slot {outbox.slot}")
        yield
    except BaseException:
        for outbox in added:
            _drop(session, outbox, Deadline(wait_seconds))
        raise


def _drop(session: Session, outbox: Outbox, deadline: Deadline) -> None:
    """Slot and publication, where they are. A connector that is deleted lets go of its slot a moment later."""
    while True:
        try:
            session.execute(DROP_SLOT, (outbox.slot,))
        except ObjectInUse as error:
            if not deadline.pause(POLL_SECONDS):
                raise NotReady(f"The slot {outbox.slot} is still read; end its reader and run this again.") from error
        else:
            break
    session.execute(f"DROP PUBLICATION IF EXISTS {outbox.slot}".encode())


def _stream(session: Session, outbox: Outbox, share: Share) -> None:
    row_filter = share.row_filter()
    events = f" WHERE ({row_filter})" if row_filter else ""
    beats = f" WHERE (id = {outbox.heartbeat_id})" if row_filter else ""
    session.execute(f"ALTER PUBLICATION {outbox.slot} SET TABLE outbox{events}, cdc_heartbeat{beats}".encode())


def _require_streaming(session: Session, present: Sequence[Outbox]) -> None:
    for outbox in present:
        row = session.execute("SELECT active FROM pg_replication_slots WHERE slot_name = %s", (outbox.slot,)).fetchone()
        if row is None or not row[0]:
            raise NotReady(
                f"The slot {outbox.slot} is not read now, so what it holds cannot be waited for: run"
                " chat4all-connectors doctor first."
            )


def _one(session: Session, query: str) -> int:
    row = session.execute(query.encode()).fetchone()
    return int(row[0]) if row else 0
