"""Faults planted into real servers: the doctor finds each of them, and nothing when all is well; it changes nothing."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psycopg
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from psycopg.rows import TupleRow
from typer.testing import CliRunner

from connectors.cli import create_app
from connectors.cli.context import Context
from infra.local.postgres import OWNER
from infra.local.stack import Stack
from schemas.topics import CONVERSATION_EVENTS, RECEIPT_EVENTS_DEAD_LETTER
from stream_apps.topics import TopicSettings, create_missing
from tests.faults.test_lost_slot import logged_in

SECONDS = 30.0
CONNECTOR = "chat4all-outbox"


class Visit(NamedTuple):
    """One run of the doctor: exit code, what it wrote, and the methods of its requests to Connect."""

    code: int
    text: str
    methods: frozenset[str]

    def checks(self) -> set[str]:
        """The checks that found something worse than a note."""
        return {each["check"] for each in json.loads(self.text) if each["severity"] != "note"}


def visit(stack: Stack, *arguments: str, environ: Mapping[str, str] | None = None) -> Visit:
    methods: set[str] = set()

    def make_http(url: str) -> httpx.Client:
        hooks: dict[str, list[Callable[..., Any]]] = {"request": [lambda request: methods.add(request.method)]}
        return httpx.Client(base_url=url, trust_env=False, event_hooks=hooks)

    told = {**stack.environment_of("doctor"), **(environ or {})}
    app = create_app(Context(make_http=make_http, environ=told))
    done = CliRunner().invoke(app, ["doctor", "--output", "json", *arguments], env=told)
    return Visit(done.exit_code, done.stdout, frozenset(methods))


def wait_for(stack: Stack, check: str, *, is_found: bool) -> Visit:
    """Until the check finds something, or nothing any more: servers take up a change a moment later."""
    deadline = time.monotonic() + SECONDS
    while True:
        last = visit(stack)
        if (check in last.checks()) is is_found:
            return last
        assert time.monotonic() < deadline, last.text
        time.sleep(0.3)


@pytest.fixture
def owner(stack: Stack) -> Iterator[psycopg.Connection[TupleRow]]:
    with logged_in(stack, OWNER, stack.secrets.database_owner) as connection:
        yield connection


RELOAD = "SELECT pg_reload_conf()"
PUBLICATION = "ALTER PUBLICATION chat4all_outbox SET TABLE outbox, cdc_heartbeat"
IN_POSTGRESQL = [
    ("postgres.slot-keep-size", "ALTER SYSTEM SET max_slot_wal_keep_size = -1", "ALTER SYSTEM RESET ALL"),
    ("postgres.idle-slot-timeout", "ALTER SYSTEM SET idle_replication_slot_timeout = '2d'", "ALTER SYSTEM RESET ALL"),
    ("postgres.synchronous-commit", "ALTER SYSTEM SET synchronous_commit = off", "ALTER SYSTEM RESET ALL"),
    ("postgres.sender-timeout", "ALTER SYSTEM SET wal_sender_timeout = 0", "ALTER SYSTEM RESET ALL"),
    ("postgres.role", "REVOKE SELECT ON outbox FROM chat_cdc", "GRANT SELECT ON outbox TO chat_cdc"),
    ("postgres.role-excess", "GRANT SELECT ON users TO chat_cdc", "REVOKE SELECT ON users FROM chat_cdc"),
    ("postgres.role-excess", "ALTER ROLE chat_cdc CREATEDB", "ALTER ROLE chat_cdc NOCREATEDB"),
    ("postgres.publication", "ALTER PUBLICATION chat4all_outbox ADD TABLE users", PUBLICATION),
    ("postgres.publication", "ALTER PUBLICATION chat4all_outbox SET (publish = 'insert')", None),
    (
        "postgres.publication-shares",
        "ALTER PUBLICATION chat4all_outbox SET TABLE outbox WHERE (seq > 5), cdc_heartbeat",
        PUBLICATION,
    ),
    (
        "postgres.stray-slot",
        "SELECT pg_create_logical_replication_slot('forgotten', 'pgoutput')",
        "SELECT pg_drop_replication_slot('forgotten')",
    ),
    (
        "postgres.replica-identity",
        "ALTER TABLE outbox REPLICA IDENTITY FULL",
        "ALTER TABLE outbox REPLICA IDENTITY DEFAULT",
    ),
    (
        "postgres.triggers",
        "CREATE TRIGGER planted BEFORE UPDATE ON outbox EXECUTE FUNCTION refuse_change()",
        "DROP TRIGGER planted ON outbox",
    ),
]


def test_a_healthy_stack_has_nothing_and_the_doctor_only_asks(stack: Stack) -> None:
    wait_for(stack, "postgres.heartbeat", is_found=False)  # the first beat comes some seconds after the start
    well = visit(stack, "--strict")

    assert (well.code, well.checks()) == (0, set()), well.text
    assert well.methods == {"GET"}


@pytest.mark.parametrize(("check", "plant", "heal"), IN_POSTGRESQL)
def test_a_fault_in_postgresql_is_found(
    stack: Stack, owner: psycopg.Connection[TupleRow], check: str, plant: str, heal: str | None
) -> None:
    owner.execute(plant.encode())
    owner.execute(RELOAD)
    try:
        found = wait_for(stack, check, is_found=True)
        assert found.checks() == {check}
    finally:
        owner.execute((heal or "ALTER PUBLICATION chat4all_outbox SET (publish = 'insert, update')").encode())
        owner.execute(RELOAD)
    assert wait_for(stack, check, is_found=False).code == 0


@contextmanager
def connect(stack: Stack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{stack.ports.connect}/connectors", timeout=30) as http:
        yield http


def test_settings_that_lose_or_delay_events_are_found(stack: Stack) -> None:
    with connect(stack) as http:
        config = http.get(f"/{CONNECTOR}/config").json()
        bad = {**config, "errors.tolerance": "all", "poll.interval.ms": "500"}
        http.put(f"/{CONNECTOR}/config", json=bad).raise_for_status()
        try:
            found = wait_for(stack, "connect.connector-settings", is_found=True)
        finally:
            http.put(f"/{CONNECTOR}/config", json=config).raise_for_status()
    assert found.code == 2
    assert "lost in silence" in found.text
    assert "poll.interval.ms is 500" in found.text
    wait_for(stack, "connect.connector-settings", is_found=False)


def test_a_connector_that_is_paused_and_two_on_one_slot_are_found(stack: Stack) -> None:
    with connect(stack) as http:
        http.put(f"/{CONNECTOR}/pause").raise_for_status()
        try:
            assert wait_for(stack, "connect.running", is_found=True).code == 2
        finally:
            http.put(f"/{CONNECTOR}/resume").raise_for_status()
        twin = {**http.get(f"/{CONNECTOR}/config").json(), "name": "twin"}
        http.put("/twin/config", json=twin).raise_for_status()
        try:
            assert "twin" in wait_for(stack, "connect.shared-slot", is_found=True).text
        finally:
            http.delete("/twin").raise_for_status()
    wait_for(stack, "connect.running", is_found=False)


async def _in_kafka(stack: Stack, change: Callable[[AIOKafkaAdminClient], Any]) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=f"127.0.0.1:{stack.ports.kafka}")
    await admin.start()
    try:
        await change(admin)
    finally:
        await admin.close()


def _set(settings: dict[str, str]) -> Callable[[AIOKafkaAdminClient], Any]:
    resource = ConfigResource(ConfigResourceType.TOPIC, CONVERSATION_EVENTS.name, configs=settings)
    return lambda admin: admin.alter_configs([resource])


def test_topics_that_are_not_as_declared_are_found(stack: Stack) -> None:
    asyncio.run(_in_kafka(stack, _set({"retention.ms": "86400000"})))
    try:
        text = wait_for(stack, "kafka.topics", is_found=True).text
    finally:
        asyncio.run(_in_kafka(stack, _set(CONVERSATION_EVENTS.full_config())))
    assert "86400000 ms" in text
    assert "message.timestamp.type=CreateTime" in text
    wait_for(stack, "kafka.topics", is_found=False)

    asyncio.run(_in_kafka(stack, lambda admin: admin.delete_topics([RECEIPT_EVENTS_DEAD_LETTER.name])))
    try:
        assert RECEIPT_EVENTS_DEAD_LETTER.name in wait_for(stack, "kafka.topics", is_found=True).text
    finally:
        asyncio.run(create_missing(TopicSettings(kafka_bootstrap=f"127.0.0.1:{stack.ports.kafka}")))
    wait_for(stack, "kafka.topics", is_found=False)


def test_settings_of_a_worker_that_hurt_are_found(stack: Stack, tmp_path: Path) -> None:
    good = Path(stack.environment_of("doctor")["CHAT4ALL_CONNECT_WORKER_FILE"]).read_text()
    bad = tmp_path / "worker.properties"
    bad.write_text(good + "\nscheduled.rebalance.max.delay.ms=300000\n")

    found = visit(stack, "--worker-file", str(bad))

    assert found.checks() == {"connect.worker-settings"}
    assert visit(stack, "--worker-file", str(tmp_path / "absent")).code == 64


def test_servers_that_do_not_answer_are_found_and_the_others_examined(stack: Stack) -> None:
    away = visit(
        stack,
        *("--url", "http://127.0.0.1:9", "--kafka", "127.0.0.1:9", "--timeout", "1"),
        environ={"CHAT4ALL_DATABASE_PASSWORD": "not-the-password"},
    )

    assert away.code == 2
    assert away.checks() == {"postgres.reachable", "connect.reachable", "kafka.reachable"}
    assert "not-the-password" not in away.text
    assert visit(stack, "--kafka", "127.0.0.1:9").checks() == {"kafka.reachable"}


def test_a_role_that_may_only_look_is_enough(stack: Stack) -> None:
    with logged_in(stack, "chat_monitor", stack.secrets.database_monitor) as monitor:
        monitor.execute("SET default_transaction_read_only = off")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            monitor.execute("UPDATE cdc_heartbeat SET beat_at = now()")
