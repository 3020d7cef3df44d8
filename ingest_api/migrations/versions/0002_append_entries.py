"""The function through which every log entry and its outbox row are written."""

from __future__ import annotations

from importlib.resources import files

from alembic import op

revision = "0002"
down_revision = "0001"


def _sql(name: str) -> str:
    return (files("ingest_api.migrations") / "sql" / f"{name}.sql").read_text()


def upgrade() -> None:
    connection = op.get_bind()
    connection.exec_driver_sql(_sql("payload_time"))
    connection.exec_driver_sql(_sql("append_entries"))


def downgrade() -> None:
    op.execute("DROP FUNCTION append_entries")
    op.execute("DROP FUNCTION payload_time")
