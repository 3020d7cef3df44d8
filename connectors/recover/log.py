"""The log and the outbox in PostgreSQL, as the role chat_recovery may use them: reads the one, writes the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from connectors.recover.model import End, Stretch
from connectors.sessions import Session

PAGE = 2000

# An end that has no entry counts as recent: it is a damage that must be seen.
READ_ENDS = """
    SELECT conversation_id::text, last_seq, coalesce(entry.created_at >= %(since)s, true)
    FROM conversations LEFT JOIN LATERAL (
        SELECT created_at FROM conversation_log
        WHERE conversation_log.conversation_id = conversations.conversation_id AND seq = last_seq
    ) AS entry ON true
    WHERE conversation_id > %(after)s
    ORDER BY conversation_id
    LIMIT %(page)s
"""
FIND_LAST_OLD = """
    SELECT seq FROM conversation_log
    WHERE conversation_id = %s AND seq BETWEEN %s AND %s AND created_at < %s
    ORDER BY seq DESC
    LIMIT 1
"""
# As append_entries writes them: same ids, same payloads, in seq order.
INSERT = """
    INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, seq, traceparent, created_at)
    SELECT event_id, 'conversation', 'conversation:' || conversation_id, type, payload, seq, traceparent, created_at
    FROM unnest(%s::uuid[], %s::bigint[], %s::bigint[])
         WITH ORDINALITY AS stretch (conversation_id, first_seq, last_seq, ordinal)
    JOIN conversation_log USING (conversation_id)
    WHERE seq BETWEEN first_seq AND last_seq
    ORDER BY ordinal, seq
    RETURNING ctid::text
"""
DELETE = "DELETE FROM outbox WHERE ctid = ANY (%s::tid[])"


class LogDamaged(Exception):
    """The log lacks entries that its conversations count; the message is a sentence."""


@contextmanager
def snapshot(session: Session) -> Iterator[int]:
    """Within this block every reading shows the log as it is now. Gives the position of the write-ahead log (bytes)
    before which all of it was committed."""
    with session.transaction():
        session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        session.execute("SELECT FROM conversations LIMIT 1")  # the first query takes the snapshot
        row = session.execute("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint").fetchone()
        yield int(row[0]) if row else 0


def read_ends(session: Session, since: datetime | None) -> Iterator[End]:
    """Where every conversation ends, in the order of their ids, read in ranges of PAGE. `since`: what counts as
    recent (None: everything)."""
    after = "00000000-0000-0000-0000-000000000000"
    while True:
        rows = session.execute(READ_ENDS, {"since": since or "-infinity", "after": after, "page": PAGE}).fetchall()
        for conversation_id, last_seq, is_recent in rows:
            yield End(conversation_id, last_seq, is_recent)
        if len(rows) < PAGE:
            return
        after = rows[-1][0]


def find_first(session: Session, stretch: Stretch, since: datetime) -> int | None:
    """The first seq of the stretch that was written at `since` or later, None if there is none. Reads no more than
    that part of it."""
    row = session.execute(FIND_LAST_OLD, (*stretch, since)).fetchone()
    first = stretch.first_seq if row is None else row[0] + 1
    return first if first <= stretch.last_seq else None


def bring_back(session: Session, batch: Sequence[Stretch]) -> int:
    """Puts the entries through the outbox, in one transaction and in this order; how many they were. Raises
    LogDamaged, having changed nothing."""
    ids, firsts, lasts = ([stretch[column] for stretch in batch] for column in range(3))
    with session.transaction():
        rows = session.execute(INSERT, (ids, firsts, lasts)).fetchall()
        expected = sum(stretch.entries for stretch in batch)
        if len(rows) != expected:
            raise LogDamaged(
                f"conversation_log holds {len(rows)} of the {expected} entries between"
                f" {batch[0].conversation_id} seq {batch[0].first_seq} and {batch[-1].conversation_id} seq"
                f" {batch[-1].last_seq}: restore it before you recover."
            )
        session.execute(DELETE, ([row[0] for row in rows],))
    return len(rows)
