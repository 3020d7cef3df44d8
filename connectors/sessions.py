"""Sessions of PostgreSQL for those who read much, write, or hold a lock (database.py answers single questions)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg

from connectors.database import DatabaseAddress, DatabaseUnreachable, find_address

Session = psycopg.Connection[tuple[Any, ...]]

CONNECT_SECONDS = 5


@contextmanager
def open_session(environ: Mapping[str, str], *, user: str, **settings: str) -> Iterator[Session]:
    """A session in which each statement is a transaction of its own, as `user` unless CHAT4ALL_DATABASE_USER says
    otherwise, with these settings of PostgreSQL. What PostgreSQL refuses while it lasts becomes a DatabaseUnreachable
    with a sentence."""
    address = find_address({"CHAT4ALL_DATABASE_USER": user, **environ})
    if address is None:
        raise DatabaseUnreachable(
            "No database is named: CHAT4ALL_DATABASE_HOST, _PORT, _NAME, _USER and _PASSWORD say where it is and who"
            f" logs in ({user})."
        )
    try:
        with _connect(address, settings) as session:
            yield session
    except psycopg.Error as error:
        said = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise DatabaseUnreachable(f"PostgreSQL at {address.host}:{address.port} as {address.user}: {said}") from error


def _connect(address: DatabaseAddress, settings: Mapping[str, str]) -> Session:
    return psycopg.connect(
        host=address.host,
        port=address.port,
        dbname=address.name,
        user=address.user,
        password=address.password.get_secret_value(),
        application_name="chat4all connectors",
        connect_timeout=CONNECT_SECONDS,
        options=" ".join(f"-c {name}={value}" for name, value in settings.items()),
        autocommit=True,
    )
