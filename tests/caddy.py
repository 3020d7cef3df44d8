"""Caddy with this project's files, in front of whatever a test puts behind it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILES = ROOT / "infra" / "caddy"
CADDY = Path(sys.executable).parent / "caddy"
START_SECONDS = 30.0


@dataclass
class Gateway:
    """A Caddy of a test's own. `folder` holds its files, which the test may change, and its log."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def log(self) -> str:
        """What it has logged so far."""
        return (self.folder / "log").read_text("utf-8")

    def reload(self) -> None:
        """Has it read its files again, and waits until it has."""
        before = self.log.count("successfully reloaded")
        self.process.send_signal(signal.SIGUSR1)
        deadline = time.monotonic() + START_SECONDS
        while self.log.count("successfully reloaded") == before:
            assert time.monotonic() < deadline, self.log
            time.sleep(0.02)


def is_listening(port: int) -> bool:
    """Whether something takes connections on this port of loopback."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@contextmanager
def start_caddy(
    port: int,
    variables: Mapping[str, str],
    *,
    config: str = "local.caddyfile",
    changes: Mapping[str, str] | None = None,
) -> Iterator[Gateway]:
    """A gateway that listens on this port of loopback. `changes`: text in the files → what stands there instead."""
    folder = Path(tempfile.mkdtemp(prefix="chat4all-gateway-"))
    for path in FILES.glob("*.caddyfile"):
        text = path.read_text("utf-8")
        for old, new in (changes or {}).items():
            text = text.replace(old, new)
        (folder / path.name).write_text(text, "utf-8")
    environment = {"PATH": os.defpath, "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder), **variables}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(CADDY), "run", "--config", str(folder / config)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    gateway = Gateway(folder, port, process)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not is_listening(port):
            assert process.poll() is None, gateway.log
            assert time.monotonic() < deadline, gateway.log
            time.sleep(0.02)
        yield gateway
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder)
