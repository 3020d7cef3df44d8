"""Reads PostgreSQL's facts in a session that cannot write, as chat_monitor, which may read little."""

from __future__ import annotations

from typing import Any

from connectors.doctor.facts import PostgresFacts, Publication, ReplicationSlot, Role
from connectors.doctor.postgres import CDC_ROLE
from connectors.sessions import Session

SETTINGS = (
    "wal_level",
    "synchronous_commit",
    "max_slot_wal_keep_size",
    "idle_replication_slot_timeout",
    "wal_sender_timeout",
    "max_replication_slots",
    "max_wal_senders",
    "synchronized_standby_slots",
)
READ_SETTINGS = "SELECT name, reset_val FROM pg_settings WHERE name = ANY (%s)"
READ_ROLE = """
    SELECT oid::bigint, to_jsonb(role),
           ARRAY(SELECT parent.rolname::text FROM pg_auth_members JOIN pg_roles AS parent ON parent.oid = roleid
                 WHERE member = role.oid)
    FROM pg_roles AS role WHERE rolname = %s
"""
READ_PRIVILEGES = """
    SELECT 'public.' || relname, array_agg(privilege)
    FROM pg_class CROSS JOIN unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}'::text[]) AS privilege
    WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f')
      AND (has_table_privilege(%(role)s::oid, pg_class.oid, privilege)
           OR privilege IN ('SELECT', 'INSERT', 'UPDATE')
              AND has_any_column_privilege(%(role)s::oid, pg_class.oid, privilege))
    GROUP BY relname
"""
READ_PUBLICATIONS = """
    SELECT publication.pubname, puballtables,
           array_remove(ARRAY[
               CASE WHEN pubinsert THEN 'insert' END, CASE WHEN pubupdate THEN 'update' END,
               CASE WHEN pubdelete THEN 'delete' END, CASE WHEN pubtruncate THEN 'truncate' END], NULL),
           coalesce(
               jsonb_object_agg(schemaname || '.' || tablename, rowfilter) FILTER (WHERE tablename IS NOT NULL), '{}')
    FROM pg_publication AS publication LEFT JOIN pg_publication_tables AS member USING (pubname)
    GROUP BY publication.pubname, puballtables, pubinsert, pubupdate, pubdelete, pubtruncate
"""
READ_SLOTS = """
    SELECT to_jsonb(slot), usename::text,
           coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::bigint,
           coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn), 0)::bigint
    FROM pg_replication_slots AS slot LEFT JOIN pg_stat_replication ON pid = active_pid
"""
READ_IDENTITIES = """
    SELECT 'public.' || relname,
           CASE WHEN relreplident <> 'd' OR EXISTS (SELECT FROM pg_index WHERE indrelid = pg_class.oid AND indisprimary)
                THEN relreplident::text ELSE 'n' END
    FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relname IN ('outbox', 'cdc_heartbeat')
"""
READ_TRIGGERS = "SELECT tgname FROM pg_trigger WHERE tgrelid = to_regclass('public.outbox') AND NOT tgisinternal"
READ_PREPARED = "SELECT coalesce(extract(epoch FROM max(now() - prepared)), 0)::float8 FROM pg_prepared_xacts"
MAY_READ_HEARTBEAT = "SELECT has_table_privilege(to_regclass('public.cdc_heartbeat'), 'SELECT')"
READ_HEARTBEATS = "SELECT id, extract(epoch FROM clock_timestamp() - beat_at)::float8 FROM cdc_heartbeat"

ATTRIBUTES = {
    "rolcanlogin": "login",
    "rolreplication": "replication",
    "rolsuper": "superuser",
    "rolcreatedb": "createdb",
    "rolcreaterole": "createrole",
    "rolbypassrls": "bypassrls",
}
MEGABYTE = 1024 * 1024


def read_postgres(session: Session) -> PostgresFacts:
    """PostgreSQL's facts now. psycopg's errors are the caller's."""
    settings = {name: value or "" for name, value in session.execute(READ_SETTINGS, (list(SETTINGS),))}
    keep = int(settings.get("max_slot_wal_keep_size", "-1"))
    slots = [_slot(*row) for row in session.execute(READ_SLOTS)]
    return PostgresFacts(
        version=session.info.server_version,
        database=session.info.dbname,
        settings=settings,
        keep_bytes=None if keep < 0 else keep * MEGABYTE,
        cdc_role=_role(session),
        publications={
            name: Publication(is_for_all, frozenset(operations), tables)
            for name, is_for_all, operations, tables in session.execute(READ_PUBLICATIONS)
        },
        slots={slot.name: slot for slot in slots},
        replica_identity=dict(session.execute(READ_IDENTITIES).fetchall()),
        triggers=tuple(name for (name,) in session.execute(READ_TRIGGERS)),
        oldest_prepared_seconds=_one(session, READ_PREPARED),
        heartbeat_ages=(
            dict(session.execute(READ_HEARTBEATS).fetchall()) if _one(session, MAY_READ_HEARTBEAT) else None
        ),
        standbys=sum(not slot.is_logical for slot in slots),
    )


def _one(session: Session, query: str) -> Any:
    row = session.execute(query.encode()).fetchone()
    return row[0] if row else None


def _role(session: Session) -> Role | None:
    row = session.execute(READ_ROLE, (CDC_ROLE,)).fetchone()
    if row is None:
        return None
    oid, columns, groups = row
    privileges = session.execute(READ_PRIVILEGES, {"role": oid}).fetchall()
    return Role(
        attributes=frozenset(name for column, name in ATTRIBUTES.items() if columns[column]),
        member_of=frozenset(groups),
        privileges={table: frozenset(held) for table, held in privileges},
    )


def _slot(columns: dict[str, Any], reader: str | None, held: int, lag: int) -> ReplicationSlot:
    """Of the columns those are optional that came with PostgreSQL 17."""
    return ReplicationSlot(
        name=columns["slot_name"],
        is_logical=columns["slot_type"] == "logical",
        plugin=columns["plugin"],
        database=columns["database"],
        is_active=columns["active"],
        reader=reader,
        wal_status=columns["wal_status"],
        invalidation=columns.get("invalidation_reason"),
        is_failover=columns.get("failover", False),
        is_synced=columns.get("synced", False),
        held_bytes=max(held, 0),
        lag_bytes=max(lag, 0),
    )
