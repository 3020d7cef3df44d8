"""Tasks made to fail, and workers killed: supervise and Connect bring change data capture back, and what was written
meanwhile arrives once. CHAT4ALL_BACK_SECONDS is how long that may take; `make faults` says 15, and runs
all variants."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager

import httpx
import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from connectors.config_file import TargetState
from connectors.connect import ConnectClient, ConnectError, Deadline
from infra.local.ports import HOST, free_ports
from infra.local.postgres import DATABASE, OWNER
from infra.local.stack import Stack
from tests.chat_client import ChatClient
from tests.conftest import ROOT
from tests.e2e.test_path import take_until, texts
from tests.second_worker import have_task_on, second_worker

Tasks = list[tuple[str, str]] | None

logger = logging.getLogger(__name__)

OUTBOX = "chat4all-outbox"
SLOT = "chat4all_outbox"
BACK_SECONDS = float(os.environ.get("CHAT4ALL_BACK_SECONDS", "90"))
INSERT = """
    INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, seq, traceparent, created_at)
    SELECT event_id, 'conversation', 'conversation:' || conversation_id, type, payload, seq, traceparent, created_at
    FROM conversation_log ORDER BY created_at DESC LIMIT 1
"""
"""An event that everyone knows already."""
HOLD = f"START_REPLICATION SLOT {SLOT} LOGICAL 0/0 (proto_version '1', publication_names '{SLOT}')"


def login(stack: Stack) -> dict[str, object]:
    return {
        "host": HOST,
        "port": stack.ports.postgres,
        "dbname": DATABASE,
        "user": OWNER,
        "password": stack.secrets.database_owner,
        "autocommit": True,
    }


def connect(stack: Stack) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(**login(stack))  # type: ignore[arg-type]


class Rest:
    """Connect's REST, whichever worker answers."""

    def __init__(self, *ports: int) -> None:
        self.ports = ports

    @contextmanager
    def client(self, seconds: float = 120) -> Iterator[ConnectClient]:
        """A client that waits for what passes."""
        with ExitStack() as stack:
            urls = [f"http://{HOST}:{port}" for port in self.ports]
            http = [stack.enter_context(httpx.Client(base_url=url, trust_env=False)) for url in urls]
            yield ConnectClient(http, Deadline(seconds))

    async def set_state(self, state: TargetState) -> None:
        """Has the connector run or stop; a stopped one has stopped then."""

        def change() -> None:
            with self.client() as client:
                client.set_state(OUTBOX, state)

        await asyncio.to_thread(change)
        if state is TargetState.stopped:
            await self.wait_for(lambda tasks: tasks == [])

    def config(self) -> dict[str, str]:
        """The settings that Connect holds."""
        with self.client() as client:
            return dict(client.get_config(OUTBOX))

    def tasks(self) -> list[tuple[str, str]] | None:
        """State and worker of each task; None while nobody can say."""
        try:
            with self.client(seconds=2) as client:
                return [(task.state, task.worker_id) for task in client.get_status(OUTBOX).tasks]
        except ConnectError:
            return None

    async def wait_for(self, condition: Callable[[Tasks], bool], seconds: float = 120) -> None:
        async with asyncio.timeout(seconds):
            while not condition(await asyncio.to_thread(self.tasks)):
                await asyncio.sleep(0.1)


def is_running(tasks: Tasks) -> bool:
    return [state for state, _ in tasks or ()] == ["RUNNING"]


def is_failed(tasks: Tasks) -> bool:
    return [state for state, _ in tasks or ()] == ["FAILED"]


def metric(port: int, name: str, **labels: str) -> float:
    """One of supervise's metrics, 0 if it is not there."""
    text = httpx.get(f"http://{HOST}:{port}/metrics", timeout=10, trust_env=False).text
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return float(sample.value)
    return 0.0


async def settle(stack: Stack, rest: Rest) -> None:
    """Waits until all is as it should be, with nothing left of an earlier fault."""
    async with asyncio.timeout(120):
        while True:
            differing = metric(stack.ports.supervise_metrics, "supervise_different_settings", connector=OUTBOX)
            if is_running(rest.tasks()) and not differing:
                return
            await asyncio.sleep(0.5)


async def measure(client: ChatClient, break_it: Callable[[], Awaitable[None]]) -> float:
    """Seconds from the end of the fault until a message that was sent meanwhile has arrived, once."""
    alice = await client.register("alice")
    conversation_id = await client.create_conversation(alice)
    async with client.stream(alice, conversation_id=conversation_id) as events:
        await client.send(alice, conversation_id, "before")
        assert texts(await take_until(events, messages=1, within_seconds=60)) == ["before"]
        await break_it()
        started = time.monotonic()
        sending = asyncio.create_task(client.send_until_accepted(alice, conversation_id, "meanwhile"))
        received = await take_until(events, messages=1, within_seconds=BACK_SECONDS)
        seconds = time.monotonic() - started
        await sending
        await client.send(alice, conversation_id, "after")
        received += await take_until(events, messages=1, within_seconds=60)
    assert texts(received) == ["meanwhile", "after"]
    logger.info("back after %.1f s", seconds)
    assert seconds <= BACK_SECONDS
    return seconds


@pytest.mark.long
async def test_an_operation_that_is_no_event_is_passed_over(stack: Stack, client: ChatClient) -> None:
    rest = Rest(stack.ports.connect)
    await settle(stack, rest)

    async def update_a_row() -> None:
        with connect(stack) as owner:  # without this PostgreSQL refuses the UPDATE
            owner.execute("ALTER TABLE outbox REPLICA IDENTITY FULL")
            owner.execute(INSERT)
            owner.execute("UPDATE outbox SET payload = '{\"a\": 1}'")
            owner.execute("DELETE FROM outbox")
            owner.execute("ALTER TABLE outbox REPLICA IDENTITY DEFAULT")

    before = metric(stack.ports.supervise_metrics, "supervise_actions_total", action="pass_over")
    await measure(client, update_a_row)
    assert metric(stack.ports.supervise_metrics, "supervise_actions_total", action="pass_over") > before
    async with asyncio.timeout(120):  # the declared settings come back
        while rest.config()["transforms.outbox.table.op.invalid.behavior"] != "fatal":
            await asyncio.sleep(0.2)
    await settle(stack, rest)


async def test_a_slot_that_another_session_held_is_taken_back(stack: Stack, client: ChatClient) -> None:
    rest = Rest(stack.ports.connect)
    await settle(stack, rest)

    async def hold_the_slot() -> None:
        await rest.set_state(TargetState.stopped)
        holder = await hold(stack)
        try:
            await rest.set_state(TargetState.running)
            await rest.wait_for(is_running)  # Debezium says so while it tries to get the slot
            await asyncio.sleep(5)
        finally:
            holder.close()

    await measure(client, hold_the_slot)


async def test_a_task_that_failed_for_what_a_person_has_mended_comes_back(stack: Stack, client: ChatClient) -> None:
    rest = Rest(stack.ports.connect)
    await settle(stack, rest)
    cause = {"connector": OUTBOX, "cause": "publication-missing"}

    async def take_the_publication_away() -> None:
        with publication_away(stack):
            await fail_for_want_of_a_publication(rest)
            async with asyncio.timeout(60):
                while metric(stack.ports.supervise_metrics, "supervise_needs_person", **cause) != 1:
                    await asyncio.sleep(0.2)

    await measure(client, take_the_publication_away)
    async with asyncio.timeout(60):
        while metric(stack.ports.supervise_metrics, "supervise_needs_person", **cause):
            await asyncio.sleep(0.2)


async def fail_for_want_of_a_publication(rest: Rest) -> None:
    """Has the connector's task start where it cannot."""
    await rest.set_state(TargetState.stopped)
    await rest.set_state(TargetState.running)
    await rest.wait_for(is_failed)


@contextmanager
def publication_away(stack: Stack) -> Iterator[None]:
    """The publication has another name meanwhile."""
    with connect(stack) as owner:
        owner.execute("ALTER PUBLICATION chat4all_outbox RENAME TO elsewhere")
        try:
            yield
        finally:
            owner.execute("ALTER PUBLICATION elsewhere RENAME TO chat4all_outbox")


async def hold(stack: Stack) -> psycopg.Connection[tuple[object, ...]]:
    """A session that reads the slot and confirms nothing."""
    async with asyncio.timeout(60):
        while True:
            holder = psycopg.connect(**login(stack), replication="database")  # type: ignore[arg-type]
            if holder.pgconn.exec_(HOLD.encode()).status == psycopg.pq.ExecStatus.COPY_BOTH:
                return holder
            holder.close()
            await asyncio.sleep(0.2)


@pytest.mark.parametrize("how", ["killed", pytest.param("restarted", marks=pytest.mark.long)])
async def test_a_database_that_comes_back_is_read_again(stack: Stack, client: ChatClient, how: str) -> None:
    rest = Rest(stack.ports.connect)
    await settle(stack, rest)

    async def restart_the_database() -> None:
        if how == "killed":
            os.kill(stack.process_id("postgres"), signal.SIGKILL)
            await asyncio.sleep(2)
        else:
            await asyncio.to_thread(stack.stop_program, "postgres")
        await asyncio.to_thread(stack.start_program, "postgres")

    await measure(client, restart_the_database)


@pytest.mark.long
@pytest.mark.parametrize("which", ["the one that is not started again", "the one that is"])
async def test_a_killed_worker_hands_its_task_over(stack: Stack, client: ChatClient, which: str) -> None:
    with second_worker(stack) as second:
        rest = Rest(second.port, stack.ports.connect)
        victim_port = second.port if which == "the one that is not started again" else stack.ports.connect
        await settle(stack, rest)
        await have_task_on(stack, second, victim_port)

        async def kill_the_worker() -> None:
            process = second.process.pid if victim_port == second.port else stack.process_id("connect")
            os.kill(process, signal.SIGKILL)

        await measure(client, kill_the_worker)
    async with asyncio.timeout(120):
        while not await asyncio.to_thread(stack.is_healthy, "connect"):
            await asyncio.sleep(0.2)


@pytest.mark.long
async def test_of_two_supervises_one_acts_and_the_other_takes_over(stack: Stack, client: ChatClient) -> None:
    rest = Rest(stack.ports.connect)
    await settle(stack, rest)
    with another_supervise(stack) as port:
        async with asyncio.timeout(60):
            while metric(stack.ports.supervise_metrics, "supervise_is_leader") != 1:
                await asyncio.sleep(0.2)
        assert metric(port, "supervise_is_leader") == 0
        stack.stop_program("supervise")
        try:
            async with asyncio.timeout(60):
                while metric(port, "supervise_is_leader") != 1:
                    await asyncio.sleep(0.2)
            with publication_away(stack):
                await fail_for_want_of_a_publication(rest)
            await rest.wait_for(is_running)
        finally:
            stack.start_program("supervise")
        assert metric(port, "supervise_is_leader") == 1
        assert metric(stack.ports.supervise_metrics, "supervise_is_leader") == 0


@contextmanager
def another_supervise(stack: Stack) -> Iterator[int]:
    """One more supervise, as a process; the port of its metrics."""
    port = free_ports().supervise_metrics
    environment = {
        **stack.environment_of("supervise"),
        "CHAT4ALL_METRICS_PORT": str(port),
        "PATH": "/usr/bin:/bin",
    }
    log_path = stack.config.logs_dir / "supervise-2.log"
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "connectors", "supervise"], cwd=ROOT, env=environment, stdout=log, stderr=log
        )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                metric(port, "supervise_is_leader")
                break
            except httpx.TransportError:
                assert process.poll() is None, log_path.read_text()
                assert time.monotonic() < deadline
                time.sleep(0.2)
        yield port
        process.terminate()
        assert process.wait(30) == 0, "told to end, it ends in order"
        lines = [json.loads(line) for line in log_path.read_text().splitlines()]
        assert lines[-1]["message"] == "Ends, as it was told."
    finally:
        process.kill()
        process.wait()
