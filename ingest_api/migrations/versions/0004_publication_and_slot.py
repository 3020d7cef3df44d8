"""The publication and the replication slot: made before the first row, since what is committed before the slot
exists is never streamed."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"

NAME = "chat4all_outbox"
CREATE_SLOT = f"""
    SELECT pg_create_logical_replication_slot(
        '{NAME}', 'pgoutput', temporary => false, twophase => false, failover => true)
    WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = '{NAME}')
"""  # noqa: S608 - a constant
DROP_SLOT = f"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '{NAME}'"  # noqa: S608


def upgrade() -> None:
    op.execute(f"CREATE PUBLICATION {NAME} FOR TABLE outbox, cdc_heartbeat WITH (publish = 'insert, update')")
    # A slot cannot be made in a transaction that has written.
    with op.get_context().autocommit_block():
        op.execute(CREATE_SLOT)


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute(DROP_SLOT)
    op.execute(f"DROP PUBLICATION {NAME}")
