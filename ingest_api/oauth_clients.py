"""`python -m ingest_api.oauth_clients`: registers OAuth clients, as the database's owner. A secret is shown once."""

from __future__ import annotations

import re
import secrets
from typing import Annotated

import typer
from argon2 import PasswordHasher
from pydantic import Field
from sqlalchemy import Connection, Engine, create_engine, delete, insert, select
from sqlalchemy.exc import IntegrityError, OperationalError

from ingest_api.audit.trail import RECORD, record_arguments
from ingest_api.database import engine_url, oauth_clients
from ingest_api.security.events import SecurityEvent
from ingest_api.security.oauth_model import CLIENT_SCOPES, FIRST_PARTY_CLIENT, USER_SCOPES
from ingest_api.settings import DatabaseSettings
from schemas.ids import is_uuid

_is_client_id = re.compile(r"[a-z0-9][a-z0-9._-]{2,63}").fullmatch

command = typer.Typer(
    help="OAuth clients. CHAT4ALL_DATABASE_PASSWORD is the owner's.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


class OwnerSettings(DatabaseSettings):
    """The owner's login: the API itself may not register clients."""

    database_user: str = Field(default="chat_owner", description="The database's owner.")


class Refused(Exception):
    """What was asked for cannot be done; the message says why."""


def create_client(engine: Engine, client_id: str, name: str, scopes: list[str]) -> str:
    """Registers a client that acts for itself (client_credentials). Returns its secret, which is stored only as an
    argon2 hash. Raises Refused, OperationalError."""
    if not _is_client_id(client_id) or is_uuid(client_id):
        raise Refused("A client id has 3 to 64 of the characters a-z 0-9 . _ - and is not a UUID.")
    if unknown := set(scopes) - set(CLIENT_SCOPES):
        hint = " (which is for users)" if unknown & set(USER_SCOPES) else ""
        raise Refused(
            f"No client has the scope {', '.join(sorted(unknown))}{hint}; there is {' '.join(CLIENT_SCOPES)}."
        )
    secret = secrets.token_urlsafe(32)
    row = {
        "client_id": client_id,
        "client_name": name,
        "client_secret_hash": PasswordHasher().hash(secret),
        "grant_types": ["client_credentials"],
        "scopes": scopes,
    }
    try:
        with engine.begin() as connection:
            connection.execute(insert(oauth_clients).values(row))
            _record(connection, "client.created", client_id)
    except IntegrityError as error:
        raise Refused(f"There is a client {client_id} already.") from error
    return secret


def delete_client(engine: Engine, client_id: str) -> None:
    """Removes a client and the refresh tokens issued to it. Access tokens live on until they expire. Raises Refused,
    OperationalError."""
    if client_id == FIRST_PARTY_CLIENT:
        raise Refused(f"{FIRST_PARTY_CLIENT} is what users log in with.")
    with engine.begin() as connection:
        if connection.execute(delete(oauth_clients).where(oauth_clients.c.client_id == client_id)).rowcount == 0:
            raise Refused(f"There is no client {client_id}.")
        _record(connection, "client.deleted", client_id)


def _record(connection: Connection, action: str, client_id: str) -> None:
    connection.exec_driver_sql(RECORD, record_arguments([SecurityEvent(action, None, {"client_id": client_id})]))


def _connect() -> Engine:
    settings = OwnerSettings()
    password = settings.database_password.get_secret_value()
    return create_engine(engine_url(settings), connect_args={"password": password, "connect_timeout": 5})


@command.command()
def create(
    client_id: Annotated[str, typer.Argument(help="its id")],
    scope: Annotated[list[str], typer.Option(help="what it may do; may be repeated")],
    name: Annotated[str, typer.Option(help="what people call it")] = "",
) -> None:
    """Registers a client and prints its secret."""
    secret = create_client(_connect(), client_id, name or client_id, scope)
    print(f"client.created: {client_id}\nIts secret, which is not shown again: {secret}")


@command.command(name="list")
def list_clients() -> None:
    """Shows the clients."""
    with _connect().connect() as connection:
        for row in connection.execute(select(oauth_clients).order_by(oauth_clients.c.client_id)):
            kind = "confidential" if row.client_secret_hash else "public"
            print(row.client_id, kind, ",".join(row.grant_types), ",".join(row.scopes), row.client_name)


@command.command(name="delete")
def remove(client_id: Annotated[str, typer.Argument(help="its id")]) -> None:
    """Removes a client."""
    delete_client(_connect(), client_id)
    print(f"client.deleted: {client_id}")


def main() -> None:
    """The command. Exit status 0, or 1 with one sentence on standard error."""
    try:
        command(prog_name="python -m ingest_api.oauth_clients")
    except Refused as error:
        typer.echo(str(error), err=True)
        raise SystemExit(1) from error
    except OperationalError as error:
        typer.echo(f"The database cannot be reached or refused the login: {error.orig}", err=True)
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
