"""API processes of a test's own, beside the one that its stack runs: same database, other port, other settings."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import IO

import httpx

from infra.local.stack import Stack
from tests.conftest import ROOT
from tests.integration.servers import free_port

START_SECONDS = 30.0


@dataclass
class ApiProcess:
    """`python -m ingest_api` on a port; its log goes to a file without a name."""

    environment: dict[str, str]
    port: int
    log: IO[bytes] = field(default_factory=tempfile.TemporaryFile)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Returns when it answers."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ingest_api", "--port", str(self.port)],
            cwd=ROOT,
            env=self.environment,
            stdout=self.log,
            stderr=self.log,
        )
        async with asyncio.timeout(START_SECONDS), httpx.AsyncClient(trust_env=False) as http:
            while True:
                assert self.process.poll() is None, self.read_log()
                try:
                    if (await http.get(f"{self.url}/readyz")).status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.05)

    async def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Its exit status."""
        assert self.process is not None
        self.process.send_signal(how)
        status = await asyncio.to_thread(self.process.wait, 30)
        self.process = None
        return status

    def read_log(self) -> str:
        """What it has logged, all its lives together."""
        self.log.seek(0)
        return self.log.read().decode()


@asynccontextmanager
async def api_process(stack: Stack, **settings: str) -> AsyncIterator[ApiProcess]:
    """A running API process. Settings by their variables' names."""
    environment = {**os.environ, **stack.environment_of("ingest-api"), **settings}
    api = ApiProcess(environment, free_port())
    try:
        await api.start()
        yield api
    finally:
        if api.process is not None:
            await api.end(signal.SIGKILL)
        api.log.close()
