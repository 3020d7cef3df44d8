"""Reads slots, heartbeats and the age of transaction ids as a role that can do nothing else (chat_monitor), and holds
the lock by which several `supervise` choose one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg.rows import TupleRow
from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from connectors.slots import DatabaseFacts, Slot

LEADER_LOCK = 0x63343473757076  # "c44supv": the key of pg_try_advisory_lock, which means this and nothing else
STATEMENT_SECONDS = 3
SILENCE_SECONDS = 30
"""A session that has not asked for this long is ended by PostgreSQL, and with it the lock of a leader cut off."""

READ_COUNTERS = """
    SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint,
           (SELECT max(greatest(age(datfrozenxid), mxid_age(datminmxid)))::bigint FROM pg_database)
"""
READ_SLOTS = """
    SELECT slot_name, active, coalesce(wal_status, 'lost'),
           coalesce(pg_wal_lsn_diff(confirmed_flush_lsn, '0/0'), 0)::bigint,
           coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn), 0)::bigint,
           coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::bigint,
           active_pid
    FROM pg_replication_slots WHERE slot_type = 'logical'
"""
READ_HEARTBEATS = "SELECT id, extract(epoch FROM clock_timestamp() - beat_at)::float8 FROM cdc_heartbeat"


class DatabaseUnreachable(Exception):
    """PostgreSQL does not answer, or refuses the login or the question; the message is a sentence for an operator."""


class DatabaseAddress(BaseSettings):
    """Where PostgreSQL is, and who looks at it: CHAT4ALL_DATABASE_HOST, _PORT, _NAME, _USER, _PASSWORD."""

    model_config = SettingsConfigDict(env_prefix="CHAT4ALL_DATABASE_", extra="ignore")

    host: str
    port: int = Field(default=5433, ge=1, le=65535)
    name: str = "chat4all"
    user: str = "chat_monitor"
    password: SecretStr = SecretStr("")


def find_address(environ: Mapping[str, str]) -> DatabaseAddress | None:
    """The address that the environment names; None if it names no host. Raises DatabaseUnreachable if it makes no
    sense."""
    values = {
        key.removeprefix("CHAT4ALL_DATABASE_").lower(): value
        for key, value in environ.items()
        if key.startswith("CHAT4ALL_DATABASE_") and value
    }
    if "host" not in values:
        return None
    try:
        return DatabaseAddress.model_validate(values)
    except ValidationError as error:
        names = ", ".join(f"CHAT4ALL_DATABASE_{str(each['loc'][0]).upper()}" for each in error.errors())
        raise DatabaseUnreachable(f"These variables are not valid: {names}.") from None


class Database:
    """One connection, opened when it is needed and after it broke. The lock lives and dies with it."""

    def __init__(self, address: DatabaseAddress, *, application_name: str = "chat4all connectors") -> None:
        self._address = address
        self._application_name = application_name
        self._connection: psycopg.Connection[TupleRow] | None = None
        self._holds_lock = False

    def read(self) -> DatabaseFacts:
        """What there is now. Raises DatabaseUnreachable."""
        ((position, transaction_id_age),) = self._ask(READ_COUNTERS)
        slots = [
            Slot(
                name=name,
                is_active=active,
                wal_status=wal_status,
                confirmed_lsn=confirmed,
                lag_bytes=max(lag, 0),
                held_bytes=max(held, 0),
                active_pid=active_pid,
            )
            for name, active, wal_status, confirmed, lag, held, active_pid in self._ask(READ_SLOTS)
        ]
        return DatabaseFacts(
            current_lsn=position,
            transaction_id_age=transaction_id_age,
            slots={slot.name: slot for slot in slots},
            heartbeat_ages={beat_id: max(age, 0.0) for beat_id, age in self._ask(READ_HEARTBEATS)},
        )

    def try_lead(self) -> bool:
        """Whether this process is the one that acts: it holds the lock, or gets it now. Raises DatabaseUnreachable."""
        if self._connection is None or not self._holds_lock:
            self._holds_lock = bool(self._ask("SELECT pg_try_advisory_lock(%s)", (LEADER_LOCK,))[0][0])
        return self._holds_lock

    def close(self) -> None:
        """Closes the connection, and with it gives the lock back."""
        connection, self._connection, self._holds_lock = self._connection, None, False
        if connection is not None:
            connection.close()

    def _ask(self, query: str, arguments: tuple[Any, ...] = ()) -> list[TupleRow]:
        try:
            if self._connection is None:
                self._connection = self._connect()
            return self._connection.execute(query.encode(), arguments).fetchall()
        except psycopg.Error as error:
            self.close()
            said = " ".join(str(error).split()) or type(error).__name__
            where = f"{self._address.host}:{self._address.port} as {self._address.user}"
            raise DatabaseUnreachable(f"PostgreSQL at {where}: {said}") from error

    def _connect(self) -> psycopg.Connection[TupleRow]:
        return psycopg.connect(
            host=self._address.host,
            port=self._address.port,
            dbname=self._address.name,
            user=self._address.user,
            password=self._address.password.get_secret_value(),
            application_name=self._application_name,
            connect_timeout=STATEMENT_SECONDS,
            tcp_user_timeout=STATEMENT_SECONDS * 1000,
            options=f"-c statement_timeout={STATEMENT_SECONDS}s -c idle_session_timeout={SILENCE_SECONDS}s",
            autocommit=True,
        )
