"""The functions through which log entries, receipts and their outbox rows are written."""

from __future__ import annotations

from importlib.resources import files

from alembic import op

revision = "0002"
down_revision = "0001"


def _sql(name: str) -> str:
    return (files("ingest_api.migrations") / "sql" / f"{name}.sql").read_text()


FUNCTIONS = ("payload_time", "append_entries", "change_conversations", "advance_receipts")


def upgrade() -> None:
    connection = op.get_bind()
    for name in FUNCTIONS:
        connection.exec_driver_sql(_sql(name))


def downgrade() -> None:
    for name in reversed(FUNCTIONS):
        op.execute(f"DROP FUNCTION {name}")
