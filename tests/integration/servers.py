"""Redis and PostgreSQL for tests that need no more than these: real ones, on free ports of loopback."""

from __future__ import annotations

import atexit
import functools
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import redis
from pydantic import SecretStr
from sqlalchemy import Engine, create_engine

from infra.local.postgres import DATABASE, OWNER, Account, choose_account, initialize, server_command
from ingest_api.database import engine_url
from ingest_api.migrate import migrate
from ingest_api.settings import DatabaseSettings, MigrationSettings

ROOT = Path(__file__).resolve().parents[2]
READER = "chat_reader"
START_SECONDS = 30.0
PORTS = range(20_000, 32_000)[int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 4 :: 4]
"""Those of this process: what is free for one that runs beside it may be chosen to be away."""


@dataclass
class Server:
    """A server process that can be stopped and started again, on the same port."""

    command: list[str]
    port: int
    password: str
    is_up: Callable[[Server], bool]
    stdin: str = ""
    process: subprocess.Popen[str] | None = field(default=None)

    def start(self) -> None:
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True
        )
        assert self.process.stdin is not None
        self.process.stdin.write(self.stdin)
        self.process.stdin.close()
        deadline = time.monotonic() + START_SECONDS
        while not self.is_up(self):
            assert self.process.poll() is None, f"{self.command[0]} ended"
            assert time.monotonic() < deadline, f"{self.command[0]} does not answer"
            time.sleep(0.02)

    def stop(self) -> None:
        """Kills it: what is only in its memory is gone."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@contextmanager
def start_redis() -> Iterator[Server]:
    """An empty Redis that keeps nothing on disk."""
    port, password = free_port(), secrets.token_hex(8)
    settings = f"bind 127.0.0.1\nport {port}\nrequirepass {password}\nsave ''\nappendonly no\n"
    server = Server(["redis-server", "-"], port, password, _is_redis_up, stdin=settings)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def start_postgres() -> Iterator[Server]:
    """A PostgreSQL with all migrations. `password` is that of every role."""
    state_dir = _state_dir()
    account = choose_account(state_dir)
    template, password = _migrated()
    try:
        subprocess.run(["cp", "--archive", "--reflink=auto", template, state_dir], check=True)
        with _running_postgres(account, state_dir / "postgres" / "data", password) as server:
            yield server
    finally:
        shutil.rmtree(state_dir)


@functools.cache
def _migrated() -> tuple[Path, str]:
    """A folder of a stopped PostgreSQL with all migrations, made once for all that start as copies of it, and the
    password of its roles."""
    state_dir, password = _state_dir(), secrets.token_hex(8)
    atexit.register(shutil.rmtree, state_dir)
    account = choose_account(state_dir)
    data_dir = state_dir / "postgres" / "data"
    initialize(account, data_dir, owner_password=password)
    same = SecretStr(password)
    with _running_postgres(account, data_dir, password) as server:
        migrate(
            MigrationSettings(
                database_host="127.0.0.1",
                database_port=server.port,
                database_name=DATABASE,
                database_user=OWNER,
                database_password=same,
                api_password=same,
                cdc_password=same,
                reader_password=same,
                monitor_password=same,
                recovery_password=same,
                channels_password=same,
            )
        )
    return data_dir.parent, password


def _state_dir() -> Path:
    state_dir = Path(tempfile.mkdtemp(prefix="chat4all-postgres-"))
    state_dir.chmod(0o755)
    return state_dir


@contextmanager
def _running_postgres(account: Account, data_dir: Path, password: str) -> Iterator[Server]:
    port = free_port()
    command = server_command(account, root=ROOT, data_dir=data_dir, port=port)
    server = Server(command, port, password, _is_postgres_up)
    try:
        server.start()
        yield server
    finally:
        if server.process is not None:
            server.process.send_signal(signal.SIGINT)  # its fast shutdown: it does not wait for clients
            server.process.wait()


def login(server: Server, role: str = OWNER) -> dict[str, Any]:
    """psycopg's connection parameters."""
    return {
        "host": "127.0.0.1",
        "port": server.port,
        "dbname": DATABASE,
        "user": role,
        "password": server.password,
    }


def owner_engine(server: Server) -> Engine:
    """SQLAlchemy's engine, as the database's owner."""
    settings = DatabaseSettings(database_port=server.port, database_user=OWNER)
    return create_engine(engine_url(settings), connect_args={"password": server.password})


def free_port() -> int:
    """A port of loopback that nobody listens on now, and that no outgoing connection takes while a server is away."""
    while True:
        port = random.choice(PORTS)
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def _is_redis_up(server: Server) -> bool:
    with redis.Redis(port=server.port, password=server.password) as client:
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False


def _is_postgres_up(server: Server) -> bool:
    try:
        psycopg.connect(**login(server)).close()
    except psycopg.OperationalError:
        return False
    return True
