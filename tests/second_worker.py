"""A second Kafka Connect worker beside a stack's own, and the command line as an operator runs it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from infra.local import probes
from infra.local.ports import HOST, free_ports
from infra.local.stack import Stack
from schemas.outboxes import Outbox
from tests.conftest import ROOT

START_SECONDS = 120
MOVE_SECONDS = 120


@dataclass
class SecondWorker:
    """Another worker of the stack's Connect cluster."""

    port: int
    process: subprocess.Popen[bytes]


@contextmanager
def second_worker(stack: Stack) -> Iterator[SecondWorker]:
    """Starts it as the first was started, at a port of its own and without metrics; ends it with the block."""
    port = free_ports().connect
    started = psutil.Process(stack.process_id("connect")).cmdline()
    command = [word for word in started if not word.startswith("-javaagent:")]
    environment = {**stack.environment_of("connect"), "CHAT4ALL_CONNECT_REST_PORT": str(port), "PATH": "/usr/bin:/bin"}
    with (stack.config.logs_dir / "connect-2.log").open("ab") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not probes.is_connect_ready(port):
            assert process.poll() is None, "the second worker ended"
            assert time.monotonic() < deadline, "the second worker does not answer"
            time.sleep(0.2)
        yield SecondWorker(port, process)
    finally:
        process.kill()
        process.wait()


async def have_task_on(stack: Stack, second: SecondWorker, port: int) -> None:
    """Moves the outbox connector's task to the worker at the port, one of the two: a worker that goes leaves it to the
    other, and one that comes takes nothing away."""
    if port == second.port:
        await asyncio.to_thread(stack.stop_program, "connect")
    await _wait_for_task(second, port)
    await asyncio.to_thread(stack.start_program, "connect")
    await asyncio.sleep(3)  # what a worker that comes may move is moved by then
    await _wait_for_task(second, port)


async def _wait_for_task(second: SecondWorker, port: int) -> None:
    there = [("RUNNING", f"{HOST}:{port}")]
    status = f"http://{HOST}:{second.port}/connectors/{Outbox(0).connector}/status"
    async with asyncio.timeout(MOVE_SECONDS), httpx.AsyncClient(timeout=30, trust_env=False) as http:
        while True:
            tasks = (await http.get(status)).json().get("tasks", [])
            if [(task["state"], task["worker_id"]) for task in tasks] == there:
                return
            await asyncio.sleep(0.2)


def run_connectors(
    stack: Stack,
    *arguments: str | Path,
    urls: str | None = None,
    database: bool = True,
    variables: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Runs `python -m connectors` with the settings of the stack's supervise; `variables` are further ones."""
    environment = {k: v for k, v in stack.environment_of("supervise").items() if database or "DATABASE" not in k}
    environment |= {"PATH": "/usr/bin:/bin", **(variables or {})}
    environment["CHAT4ALL_CONNECT_URL"] = urls or f"http://{HOST}:{stack.ports.connect}"
    return subprocess.run(
        [sys.executable, "-m", "connectors", *map(str, arguments)],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
