"""The functions through which log entries, receipts, their outbox rows and the audit log are written, and the one that
makes a lost replication slot anew."""

from __future__ import annotations

from importlib.resources import files

from alembic import op

revision = "0002"
down_revision = "0001"


def _sql(name: str) -> str:
    return (files("ingest_api.migrations") / "sql" / f"{name}.sql").read_text()


FUNCTIONS = (
    "payload_time",
    "audit_entry_hash",
    "record_audit_events",
    "refuse_change",
    "append_entries",
    "change_conversations",
    "advance_receipts",
    "renew_outbox_slot",
)
APPEND_ONLY = """
CREATE TRIGGER audit_log_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
"""


def upgrade() -> None:
    connection = op.get_bind()
    for name in FUNCTIONS:
        connection.exec_driver_sql(_sql(name))
    op.execute(APPEND_ONLY)


def downgrade() -> None:
    op.execute("DROP TRIGGER audit_log_is_append_only ON audit_log")
    for name in reversed(FUNCTIONS):
        op.execute(f"DROP FUNCTION {name}")
