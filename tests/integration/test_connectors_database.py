"""Slots, heartbeats and the lock of supervise on a real PostgreSQL, as the role that may do no more."""

from __future__ import annotations

import time
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import errors
from pydantic import SecretStr

from connectors.database import Database, DatabaseAddress, DatabaseUnreachable, find_address
from tests.integration.servers import Server, login, start_postgres

MONITOR = "chat_monitor"


@pytest.fixture(scope="module")
def postgres() -> Iterator[Server]:
    with start_postgres() as server:
        yield server


def address(server: Server, password: str | None = None) -> DatabaseAddress:
    return DatabaseAddress(host="127.0.0.1", port=server.port, password=SecretStr(password or server.password))


@pytest.fixture
def databases(postgres: Server) -> Iterator[tuple[Database, Database]]:
    pair = Database(address(postgres)), Database(address(postgres))
    yield pair
    for database in pair:
        database.close()


def wait_to_lead(database: Database) -> None:
    """PostgreSQL lets go of a session's lock a moment after the session has ended."""
    deadline = time.monotonic() + 30
    while not database.try_lead():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_slot_and_the_heartbeat_are_read(postgres: Server, databases: tuple[Database, Database]) -> None:
    with psycopg.connect(**login(postgres)) as owner:
        owner.execute("INSERT INTO cdc_heartbeat (id, beat_at) VALUES (1, clock_timestamp() - interval '7 s')")
    facts = databases[0].read()
    slot = facts.slots["chat4all_outbox"]
    assert (slot.is_active, slot.wal_status, slot.is_lost) == (False, "reserved", False)
    assert 0 < slot.confirmed_lsn <= facts.current_lsn
    assert slot.held_bytes >= slot.lag_bytes >= 0
    assert 7 <= facts.heartbeat_ages[1] < 60


def test_the_age_of_transaction_ids_counts_transactions(postgres: Server, databases: tuple[Database, Database]) -> None:
    before = databases[0].read().transaction_id_age
    with psycopg.connect(**login(postgres), autocommit=True) as owner:
        for _ in range(20):
            owner.execute("SELECT pg_current_xact_id()")
    assert 20 <= databases[0].read().transaction_id_age - before < 200


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM conversation_log",
        "SELECT * FROM outbox",
        "SELECT * FROM users",
        "UPDATE cdc_heartbeat SET beat_at = now()",
        "SELECT pg_drop_replication_slot('chat4all_outbox')",
        "SELECT pg_read_file('postgresql.conf')",
        "CREATE TABLE x (y int)",
    ],
)
def test_the_role_may_do_no_more(postgres: Server, statement: str) -> None:
    refusals = (errors.InsufficientPrivilege, errors.ReadOnlySqlTransaction)
    with psycopg.connect(**login(postgres, MONITOR), autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        with pytest.raises(refusals):
            connection.execute(statement.encode())


def test_one_leads_until_it_ends_and_then_another(databases: tuple[Database, Database]) -> None:
    first, second = databases
    assert first.try_lead()
    assert first.try_lead()
    assert not second.try_lead()
    first.close()
    wait_to_lead(second)
    assert not first.try_lead()


def test_one_whose_session_is_ended_notices_and_leads_no_more(
    postgres: Server, databases: tuple[Database, Database]
) -> None:
    first, second = databases
    assert first.try_lead()
    with psycopg.connect(**login(postgres), autocommit=True) as owner:
        owner.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'chat_monitor'")
        with pytest.raises(DatabaseUnreachable):
            first.read()
    wait_to_lead(second)
    assert not first.try_lead()


def test_one_that_falls_silent_is_ended_by_postgres(databases: tuple[Database, Database]) -> None:
    shown = databases[0]._ask("SHOW idle_session_timeout")
    assert shown == [("30s",)]


def test_a_login_that_is_refused_is_a_sentence_without_the_password(postgres: Server) -> None:
    with pytest.raises(DatabaseUnreachable, match="password authentication failed") as refused:
        Database(address(postgres, password="hunter2")).read()
    assert "hunter2" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_address_comes_from_the_environment_or_there_is_none() -> None:
    assert find_address({}) is None
    assert find_address({"CHAT4ALL_DATABASE_PORT": "1"}) is None
    found = find_address({"CHAT4ALL_DATABASE_HOST": "h", "CHAT4ALL_DATABASE_PASSWORD": "hunter2"})
    assert found is not None
    assert (found.host, found.port, found.user) == ("h", 5433, MONITOR)
    assert "hunter2" not in repr(found)
    with pytest.raises(DatabaseUnreachable, match="CHAT4ALL_DATABASE_PORT"):
        find_address({"CHAT4ALL_DATABASE_HOST": "h", "CHAT4ALL_DATABASE_PORT": "hunter2"})
