"""The load generator's two halves: a lean HTTP/1.1 client that costs the machine little, and an open loop.

An open loop sends at the intended times whatever the answers do, and every latency is taken from the intended start:
a server that stalls is charged for everyone who would have waited (no coordinated omission).
"""

from __future__ import annotations

import asyncio
import gc
import re
import resource
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from hdrh.histogram import HdrHistogram

PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)
_CONTENT_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")


class Connection(asyncio.Protocol):
    """One keep-alive connection: one request at a time."""

    def __init__(self) -> None:
        self.is_lost = False
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but inheritance

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head_end = self._buffer.find(b"\r\n\r\n")
        if head_end < 0 or self._answer is None:
            return
        length = _CONTENT_LENGTH.search(self._buffer, 0, head_end)
        end = head_end + 4 + (int(length[1]) if length else 0)
        if len(self._buffer) >= end:
            status, body = int(self._buffer[9:12]), self._buffer[head_end + 4 : end]
            self._buffer = self._buffer[end:]
            answer, self._answer = self._answer, None
            if not answer.done():
                answer.set_result((status, body))

    def connection_lost(self, error: Exception | None) -> None:
        self.is_lost = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error or ConnectionError("the server closed the connection"))

    async def post(self, head: bytes, body: bytes) -> tuple[int, bytes]:
        """Sends the request; status and body of its answer. `head` is request line and headers but the length."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body))
        return await self._answer

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


@dataclass
class ConnectionPool:
    """Keep-alive connections to one port of this machine. The one used last is used first, and one that the server has
    closed meanwhile, for nothing came, is opened again."""

    port: int
    free: deque[Connection] = field(default_factory=deque)
    _waiters: deque[asyncio.Future[Connection]] = field(default_factory=deque)

    async def open(self, count: int) -> None:
        for _ in range(count):
            self.free.append(await self._connect())

    async def post(self, head: bytes, body: bytes) -> tuple[int, bytes]:
        if self.free:
            connection = self.free.pop()
        else:
            waiter: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            connection = await waiter
        try:
            if connection.is_lost:
                connection = await self._connect()
            return await connection.post(head, body)
        finally:
            if self._waiters:
                self._waiters.popleft().set_result(connection)
            else:
                self.free.append(connection)

    async def _connect(self) -> Connection:
        _, connection = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", self.port)
        return connection

    def close(self) -> None:
        while self.free:
            self.free.popleft().close()


def request_head(path: str, token: str) -> bytes:
    """The head of a JSON POST, for Connection.post."""
    return (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n"
        "Content-Type: application/json\r\n"
    ).encode()


class Latencies:
    """A histogram of seconds (microsecond resolution, up to two minutes)."""

    def __init__(self) -> None:
        self._histogram = HdrHistogram(1, 120_000_000, 3)
        self.count = 0

    def record(self, seconds: float) -> None:
        self.count += 1
        self._histogram.record_value(max(1, int(seconds * 1e6)))

    def milliseconds(self) -> dict[str, float]:
        """Percentile -> milliseconds, and the maximum."""
        found = {
            f"p{percentile:g}": round(self._histogram.get_value_at_percentile(percentile) / 1000, 2)
            for percentile in PERCENTILES
        }
        return {**found, "max": round(self._histogram.get_max_value() / 1000, 2)}


@contextmanager
def garbage_left() -> Iterator[None]:
    """No garbage is collected in the block: with thousands of connections one collection takes 0.2 s, which a
    generator would charge to the server."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def run_open_loop(rate: float, seconds: float, send: Callable[[int, float], Awaitable[Any]]) -> dict[str, float]:
    """Calls `send(number, intended_start)` at `rate` per second; returns when all calls have ended. `intended_start`
    is in the seconds of time.perf_counter. The answer: how the generator itself fared."""
    total = int(rate * seconds)
    tasks: set[asyncio.Task[Any]] = set()
    cpu_before = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    with garbage_left():
        started = time.perf_counter() + 0.1
        latest = 0.0
        for number in range(total):
            intended = started + number / rate
            now = time.perf_counter()
            if intended > now:
                await asyncio.sleep(intended - now)
            latest = max(latest, time.perf_counter() - intended)
            task = asyncio.ensure_future(send(number, intended))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        if tasks:
            await asyncio.gather(*tasks)
    elapsed = time.perf_counter() - started
    cpu = sum(resource.getrusage(resource.RUSAGE_SELF)[:2]) - cpu_before
    return {
        "generator_cpu_percent": round(100 * cpu / elapsed, 1),
        "generator_latest_start_ms": round(latest * 1000, 2),
    }
