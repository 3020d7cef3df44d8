"""The embedded stack's own behaviour, tried on its smallest server: Redis, and programs made to fail."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from infra.local.config import StackConfig
from infra.local.errors import StackError
from infra.local.leftovers import find_processes
from infra.local.ports import HOST
from infra.local.program import STACK_MARK, Program
from infra.local.programs import PROGRAMS
from infra.local.stack import Stack

ROOT = Path(__file__).resolve().parents[2]
REDIS = next(program for program in PROGRAMS if program.name == "redis")

FAILING = Program(
    name="failing",
    port="delivery",
    needs=("redis",),
    command=lambda _: ["sh", "-c", "echo the reason why; exit 3"],
    environment=lambda site: {STACK_MARK: str(site.config.state_dir)},
    is_ready=lambda _: False,
)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Stack]:
    """A stack of Redis alone."""
    stack = Stack(StackConfig.isolated(ROOT, tmp_path / "state"), programs=[REDIS], steps=[])
    yield stack
    stack.wipe()


def wait_until_healthy(stack: Stack, program: str, *, other_than: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if stack.is_healthy(program) and stack.process_id(program) != other_than:
            return
        time.sleep(0.05)
    pytest.fail(f"{program} did not come back")


def test_a_second_start_changes_nothing(small: Stack) -> None:
    assert small.up()
    process_id = small.process_id("redis")

    assert not small.up()
    assert small.process_id("redis") == process_id


def test_after_a_stop_no_process_is_left_and_data_stays(small: Stack) -> None:
    small.up()

    assert small.down()

    assert find_processes(small.config.state_dir) == []
    assert small.config.secrets_dir.is_dir()
    assert not small.down()


def test_a_wipe_removes_the_state(small: Stack) -> None:
    small.up()

    small.wipe()

    assert not small.config.state_dir.exists()


def test_a_killed_program_comes_back_by_itself(small: Stack) -> None:
    small.up()
    process_id = small.process_id("redis")

    os.kill(process_id, signal.SIGKILL)

    wait_until_healthy(small, "redis", other_than=process_id)


def test_a_stopped_program_stays_stopped_until_it_is_started(small: Stack) -> None:
    small.up()

    small.stop_program("redis")
    assert not small.is_healthy("redis")

    small.start_program("redis")
    assert small.is_healthy("redis")


def test_a_start_after_the_supervisor_was_killed_ends_what_it_left(small: Stack) -> None:
    small.up()
    process_id = small.process_id("redis")
    os.kill(int((small.config.state_dir / "supervisord.pid").read_text()), signal.SIGKILL)

    said: list[str] = []
    small.up(report=said.append)

    assert f"({process_id})" in said[0]
    assert small.is_healthy("redis")


def test_a_program_that_keeps_failing_is_told_with_its_log_and_nothing_is_left(tmp_path: Path) -> None:
    config = StackConfig.isolated(ROOT, tmp_path / "state")
    stack = Stack(config, programs=[REDIS, FAILING], steps=[])

    with pytest.raises(StackError, match="the reason why"):
        stack.up()

    assert find_processes(config.state_dir) == []
    stack.wipe()


def test_what_only_watches_is_left_out_with_its_log_when_it_fails(tmp_path: Path) -> None:
    config = StackConfig.isolated(ROOT, tmp_path / "state")
    stack = Stack(config, programs=[REDIS, replace(FAILING, needs=(), only_watches=True)], steps=[])
    said: list[str] = []

    assert stack.up(report=said.append)

    assert any("failing is left out" in line and "the reason why" in line for line in said)
    assert stack.is_healthy("redis")
    stack.wipe()


def test_what_only_watches_is_left_out_when_its_port_is_taken(tmp_path: Path) -> None:
    stack = Stack(
        StackConfig.isolated(ROOT, tmp_path / "state"),
        programs=[REDIS, replace(FAILING, needs=(), only_watches=True)],
        steps=[],
    )
    said: list[str] = []

    with socket.create_server((HOST, stack.ports.delivery)):
        assert stack.up(report=said.append)

    assert any("CHAT4ALL_DELIVERY_PORT moves it" in line for line in said)
    assert stack.is_healthy("redis")
    stack.wipe()


def test_a_taken_port_stops_the_start_before_anything_runs(small: Stack) -> None:
    with socket.create_server((HOST, small.ports.redis)), pytest.raises(StackError, match="CHAT4ALL_REDIS_PORT"):
        small.up()

    assert find_processes(small.config.state_dir) == []


def test_a_running_stack_is_not_moved_to_other_ports(small: Stack) -> None:
    small.up()
    elsewhere = replace(small.config, ports=replace(small.ports, redis=small.ports.redis + 1))

    with pytest.raises(StackError, match="already runs, at other ports"):
        Stack(elsewhere, programs=[REDIS], steps=[]).up()


def test_two_stacks_run_side_by_side(small: Stack, tmp_path: Path) -> None:
    other = Stack(StackConfig.isolated(ROOT, tmp_path / "other"), programs=[REDIS], steps=[])
    small.up()
    other.up()

    other.wipe()

    assert small.is_healthy("redis")


def test_a_command_runs_with_a_programs_settings(small: Stack) -> None:
    small.up()
    state = {"CHAT4ALL_STATE_DIR": str(small.config.state_dir), "CHAT4ALL_METRICS_PORT": "9777"}
    names = [f"CHAT4ALL_{name}" for name in ("REDIS_PORT", "REDIS_PASSWORD", "METRICS_PORT")]
    code = f"import os; print(*map(os.environ.get, {names}))"
    command = [sys.executable, "-m", "infra.local", "exec", "timeline", "python", "-c", code]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **state}, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == [str(small.ports.redis), small.secrets.redis, "9777"]
