"""Backfill: rebuilds Redis tables from Postgres on command, `python -m stream_apps.backfill`."""
