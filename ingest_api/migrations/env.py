"""Alembic's environment: runs the migrations over the connection that `ingest_api.migrate` hands it."""

from __future__ import annotations

from alembic import context

from ingest_api.database import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, transaction_per_migration=True)
with context.begin_transaction():
    context.run_migrations()
