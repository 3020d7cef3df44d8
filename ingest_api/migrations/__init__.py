"""Alembic migrations: tables, the append function, roles, publication and replication slot."""
