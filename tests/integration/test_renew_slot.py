"""Making a replication slot anew, with no more rights than that takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from schemas.outboxes import NAME
from tests.integration.servers import Server, login, start_postgres

RENEW = "SELECT renew_outbox_slot(%s)"
DROP = "SELECT pg_drop_replication_slot(%s)"
SHOW = "SELECT plugin, failover, two_phase, temporary FROM pg_replication_slots WHERE slot_name = %s"


@pytest.fixture(scope="module")
def postgres() -> Iterator[Server]:
    with start_postgres() as server:
        yield server


def connect(server: Server, role: str) -> psycopg.Connection[tuple[Any, ...]]:
    return psycopg.connect(**login(server, role), autocommit=True)


def test_a_slot_that_can_be_read_is_kept_and_a_missing_one_is_made(postgres: Server) -> None:
    with connect(postgres, "chat_recovery") as recovery, connect(postgres, "chat_owner") as owner:
        assert recovery.execute(RENEW, (NAME,)).fetchone() == ("kept",)
        owner.execute(DROP, (NAME,))
        assert recovery.execute(RENEW, (NAME,)).fetchone() == ("created",)
        assert recovery.execute(SHOW, (NAME,)).fetchone() == ("pgoutput", True, False, False)


def test_a_lost_slot_is_replaced(postgres: Server) -> None:
    with connect(postgres, "chat_recovery") as recovery, connect(postgres, "chat_owner") as owner:
        owner.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '32MB'")
        owner.execute("SELECT pg_reload_conf()")
        try:
            for _ in range(150):
                owner.execute("SELECT pg_logical_emit_message(false, 'test', repeat('x', 1000000))")
            owner.execute("SELECT pg_switch_wal()")
            owner.execute("CHECKPOINT")
            lost = owner.execute("SELECT wal_status FROM pg_replication_slots WHERE slot_name = %s", (NAME,)).fetchone()
            assert lost == ("lost",)
            assert recovery.execute(RENEW, (NAME,)).fetchone() == ("replaced",)
            assert recovery.execute(RENEW, (NAME,)).fetchone() == ("kept",)
        finally:
            owner.execute("ALTER SYSTEM RESET max_slot_wal_keep_size")
            owner.execute("SELECT pg_reload_conf()")


@pytest.mark.parametrize("slot", ["another", "chat4all_outbox_7"])
def test_only_an_outbox_has_a_slot_to_be_renewed(postgres: Server, slot: str) -> None:
    with (
        connect(postgres, "chat_recovery") as recovery,
        pytest.raises(psycopg.errors.UndefinedObject, match=f"there is no outbox named {slot}"),
    ):
        recovery.execute(RENEW, (slot,))


@pytest.mark.parametrize("role", ["chat_api", "chat_reader", "chat_cdc"])
def test_nobody_else_may_renew_one(postgres: Server, role: str) -> None:
    with connect(postgres, role) as other, pytest.raises(psycopg.errors.InsufficientPrivilege):
        other.execute(RENEW, (NAME,))


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT pg_drop_replication_slot('chat4all_outbox')",
        "UPDATE conversation_log SET payload = ''",
        "DELETE FROM conversation_log",
        "INSERT INTO conversations (conversation_id, created_by) VALUES (gen_random_uuid(), gen_random_uuid())",
        "SELECT FROM users",
        "SELECT FROM refresh_tokens",
        "UPDATE outbox SET payload = ''",
        "TRUNCATE outbox",
    ],
)
def test_who_recovers_may_do_nothing_else(postgres: Server, statement: str) -> None:
    with connect(postgres, "chat_recovery") as recovery, pytest.raises(psycopg.errors.InsufficientPrivilege):
        recovery.execute(statement.encode())
