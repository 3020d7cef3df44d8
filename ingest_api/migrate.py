"""`python -m ingest_api.migrate`: brings the database to the newest schema and sets the roles' passwords."""

from __future__ import annotations

import argparse
import sys

import psycopg
from alembic import command
from alembic.config import Config
from psycopg import sql
from pydantic import SecretStr, ValidationError
from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import OperationalError

from ingest_api.database import engine_url
from ingest_api.settings import MigrationSettings


def alembic_config(connection: Connection) -> Config:
    """Alembic's configuration for a connection that is already open."""
    config = Config()
    config.set_main_option("script_location", "ingest_api:migrations")
    config.attributes["connection"] = connection
    return config


def migrate(settings: MigrationSettings) -> None:
    """Runs the missing migrations, then sets the passwords. Both may be repeated. Raises OperationalError."""
    engine = create_engine(
        engine_url(settings),
        connect_args={"password": settings.database_password.get_secret_value(), "connect_timeout": 5},
    )
    with engine.connect() as connection:
        command.upgrade(alembic_config(connection), "head")
    engine.dispose()
    with psycopg.connect(**settings.connection_arguments()) as login:
        _set_password(login, "chat_api", settings.api_password)
        _set_password(login, "chat_cdc", settings.cdc_password)
        _set_password(login, "chat_reader", settings.reader_password)
        _set_password(login, "chat_monitor", settings.monitor_password)
        _set_password(login, "chat_recovery", settings.recovery_password)
        _set_password(login, "chat_channels", settings.channels_password)


def _set_password(connection: psycopg.Connection[tuple[object, ...]], role: str, password: SecretStr) -> None:
    """Sets a role's password by its SCRAM verifier, made here: the server's log never sees the password."""
    verifier = connection.pgconn.encrypt_password(password.get_secret_value().encode(), role.encode(), b"scram-sha-256")
    connection.execute(
        sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), sql.Literal(verifier.decode()))
    )


def main() -> int:
    """The command. Exit status 0, or 1 with one sentence on standard error."""
    argparse.ArgumentParser(prog="python -m ingest_api.migrate", description=__doc__).parse_args()
    try:
        migrate(MigrationSettings())
    except ValidationError as error:
        names = ", ".join(f"CHAT4ALL_{'_'.join(map(str, item['loc'])).upper()}" for item in error.errors())
        print(f"These settings are missing or not valid: {names}.", file=sys.stderr)
        return 1
    except (OperationalError, psycopg.OperationalError) as error:
        print(f"The database cannot be reached or refused the login: {error}", file=sys.stderr)
        return 1
    print("The database is at the newest schema.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
