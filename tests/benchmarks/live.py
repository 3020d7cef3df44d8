"""Live clients in numbers: what an idle one costs, how late the watched are told, and how fast one event reaches many.
Half of the clients come over Server-Sent Events, half over a WebSocket."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import psutil
from redis.asyncio import Redis

from infra.local.stack import Stack
from tests.benchmarks.cpu import CpuUse
from tests.benchmarks.load import ConnectionPool, Latencies, request_head, run_open_loop
from tests.chat_client import ChatClient, User

IDLE_CLIENTS = 2000
WATCHED_CONVERSATIONS = 500
RATE = 200.0
WATCHERS = 1000
FAN_OUT_BATCHES = 10
FAN_OUT_BATCH_SIZE = 20
USERS = 50
OPENED_AT_ONCE = 50
FILLER = "x" * 180
_NUMBER = re.compile(rb"~#(\d+)~")
MAX_MARK_BYTES = 16


class Watcher(asyncio.Protocol):
    """A live client that costs the machine little: it does not parse what it is told, but looks for marks in it."""

    def __init__(self, first_bytes: bytes, then: bytes, on_mark: Callable[[int], None]) -> None:
        self._first_bytes = first_bytes
        self._then = then
        self._on_mark = on_mark
        self._rest = b""
        self._transport: asyncio.Transport | None = None
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but inheritance
        self._transport.write(self._first_bytes)

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        if not self.ready.done():
            self._rest = data
            self._begin(data)
            return
        end = 0
        for found in _NUMBER.finditer(data):
            end = found.end()
            self._on_mark(int(found[1]))
        self._rest = data[max(end, len(data) - MAX_MARK_BYTES) :]

    def _begin(self, data: bytes) -> None:
        """What the server says until it is ready to tell events."""
        if self._then and data.startswith(b"HTTP/1.1 101") and self._transport is not None:
            self._transport.write(self._then)
            self._then = b""
        if b"event: ready" in data or b'"subscribed"' in data:
            self.ready.set_result(None)
            self._rest = b""
        elif not data.startswith((b"HTTP/1.1 200", b"HTTP/1.1 101")):
            self.ready.set_exception(ConnectionError(data[:200].decode(errors="replace")))

    def connection_lost(self, error: Exception | None) -> None:
        if not self.ready.done():
            self.ready.set_exception(error or ConnectionError("the server closed the connection"))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def sse_request(user: User, conversation_id: str) -> tuple[bytes, bytes]:
    """What opens a stream of one conversation."""
    request = (
        f"GET /v1/stream?conversation_id={conversation_id} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Authorization: Bearer {user.token}\r\n\r\n"
    )
    return request.encode(), b""


def websocket_request(user: User, conversation_id: str) -> tuple[bytes, bytes]:
    """The handshake, and the frame to send when it is answered."""
    handshake = (
        "GET /v1/ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\n"
        f"Sec-WebSocket-Protocol: chat4all.v1, bearer.{user.token}\r\n\r\n"
    )
    return handshake.encode(), masked_text(json.dumps({"type": "subscribe", "conversation_id": conversation_id}))


def masked_text(text: str) -> bytes:
    """A client's text frame of at most 125 bytes (RFC 6455, section 5.2), masked by zeros."""
    payload = text.encode()
    return struct.pack("!BB4x", 0x81, 0x80 | len(payload)) + payload


@dataclass
class Crowd:
    """Live clients of one delivery."""

    port: int
    on_mark: Callable[[int], None]
    watchers: list[Watcher] = field(default_factory=list)

    async def open(self, who: list[tuple[User, str]]) -> None:
        """One client for each user and conversation, a few at a time."""
        loop = asyncio.get_running_loop()
        for first in range(0, len(who), OPENED_AT_ONCE):
            opened = []
            for number, (user, conversation_id) in enumerate(who[first : first + OPENED_AT_ONCE]):
                request = (sse_request if number % 2 else websocket_request)(user, conversation_id)
                make = partial(Watcher, *request, self.on_mark)
                _, watcher = await loop.create_connection(make, "127.0.0.1", self.port)
                opened.append(watcher)
            self.watchers += opened
            async with asyncio.timeout(30):
                await asyncio.gather(*(watcher.ready for watcher in opened))

    def close(self) -> None:
        for watcher in self.watchers:
            watcher.close()
        self.watchers.clear()


async def measure_live(stack: Stack, *, seconds: float) -> dict[str, Any]:
    """All of it, on one system."""
    client = ChatClient(f"http://127.0.0.1:{stack.ports.ingest_api}", f"http://127.0.0.1:{stack.ports.delivery}")
    try:
        users = [await client.register("live") for _ in range(USERS)]
        quiet = [await client.create_conversation(user) for user in users]
        watched = [
            (users[n % USERS], await client.create_conversation(users[n % USERS])) for n in range(WATCHED_CONVERSATIONS)
        ]
        await asyncio.sleep(2)
        crowd = await measure_crowd(stack, list(zip(users, quiet, strict=True)), watched, seconds=seconds)
        fan_out = await measure_fan_out(stack, client, users[0])
    finally:
        await client.close()
    return {"crowd": crowd, "fan_out": fan_out}


async def measure_crowd(
    stack: Stack, quiet: list[tuple[User, str]], watched: list[tuple[User, str]], *, seconds: float
) -> dict[str, Any]:
    """Memory per idle client; then how late the clients of watched conversations are told, beside the idle ones."""
    received, accepted, delivered = Latencies(), Latencies(), Latencies()
    intended_starts: dict[int, float] = {}
    published: dict[int, float] = {}

    def on_mark(number: int) -> None:
        now = time.perf_counter()
        received.record(now - intended_starts[number])
        delivered.record(now - published.get(number, now))

    idle, watching = Crowd(stack.ports.delivery, on_mark), Crowd(stack.ports.delivery, on_mark)
    pool = ConnectionPool(stack.ports.ingest_api)
    try:
        bytes_per_client = await measure_memory(stack, idle, quiet)
        idle_cpu = CpuUse.of(stack)
        await asyncio.sleep(5)
        idle_percent = (await idle_cpu.percent_since())["delivery"]
        await watching.open(watched)
        await pool.open(32)
        heads = [request_head(f"/v1/conversations/{each}/messages", user.token) for user, each in watched]

        async def send(number: int, intended: float) -> None:
            intended_starts[number] = intended
            body = json.dumps({"body": {"type": "text", "text": f"~#{number}~ {FILLER}"}}).encode()
            status, _ = await pool.post(heads[number % len(heads)], body)
            assert status == 201
            accepted.record(time.perf_counter() - intended)

        listening = asyncio.create_task(note_published(stack, published))
        cpu = CpuUse.of(stack)
        generator = await run_open_loop(RATE, seconds, send)
        cpu_percent = await cpu.percent_since()
        listening.cancel()
        async with asyncio.timeout(30):
            while received.count < accepted.count:
                await asyncio.sleep(0.05)
    finally:
        pool.close()
        idle.close()
        watching.close()
    return {
        "idle_clients": IDLE_CLIENTS,
        "kilobytes_per_client": round(bytes_per_client / 1000, 1),
        "idle_cpu_percent": idle_percent,
        "watched_conversations": len(watched),
        "rate_per_second": RATE,
        "messages": accepted.count,
        "acknowledged_ms": accepted.milliseconds(),
        "received_ms": received.milliseconds(),
        "delivered_ms": delivered.milliseconds(),
        "delivery_cpu_percent": cpu_percent["delivery"],
        **generator,
    }


async def measure_memory(stack: Stack, idle: Crowd, quiet: list[tuple[User, str]]) -> float:
    """Bytes of delivery's memory per idle client. What the first hundred cost is not theirs alone."""
    process = psutil.Process(stack.process_id("delivery"))
    await idle.open([quiet[number % len(quiet)] for number in range(100)])
    before = process.memory_info().rss
    await idle.open([quiet[number % len(quiet)] for number in range(IDLE_CLIENTS)])
    return float(process.memory_info().rss - before) / IDLE_CLIENTS


async def note_published(stack: Stack, published: dict[int, float]) -> None:
    """When each message was published in Redis, as a subscriber of its own sees it."""
    async with Redis(port=stack.ports.redis, password=stack.secrets.redis) as redis, redis.pubsub() as channels:
        await channels.psubscribe("conv:*:live")
        async for message in channels.listen():
            if message["type"] == "pmessage" and (found := _NUMBER.search(message["data"])):
                published[int(found[1])] = time.perf_counter()


async def measure_fan_out(stack: Stack, client: ChatClient, user: User) -> dict[str, Any]:
    """Deliveries per second of one conversation's events to a thousand watchers: from the first to the last one."""
    conversation_id = await client.create_conversation(user)
    await asyncio.sleep(1)
    count = 0
    first_at = last_at = 0.0

    def on_mark(_: int) -> None:
        nonlocal count, first_at, last_at
        last_at = time.perf_counter()
        first_at = first_at or last_at
        count += 1

    messages = FAN_OUT_BATCHES * FAN_OUT_BATCH_SIZE
    crowd = Crowd(stack.ports.delivery, on_mark)
    try:
        await crowd.open([(user, conversation_id)] * WATCHERS)
        cpu = CpuUse.of(stack)
        for batch in range(FAN_OUT_BATCHES):
            numbers = range(batch * FAN_OUT_BATCH_SIZE, (batch + 1) * FAN_OUT_BATCH_SIZE)
            body = {
                "messages": [
                    {"conversation_id": conversation_id, "body": {"type": "text", "text": f"~#{number}~ {FILLER}"}}
                    for number in numbers
                ]
            }
            answer = await client.http.post(f"{client.ingest_url}/v1/messages/batch", json=body, headers=user.headers)
            answer.raise_for_status()
        async with asyncio.timeout(120):
            while count < messages * WATCHERS:
                await asyncio.sleep(0.05)
        cpu_percent = (await cpu.percent_since())["delivery"]
    finally:
        crowd.close()
    assert count == messages * WATCHERS, "each event is told once"
    return {
        "watchers": WATCHERS,
        "messages": messages,
        "deliveries": count,
        "deliveries_per_second": round(count / (last_at - first_at)),
        "delivery_cpu_percent": cpu_percent,
    }


def render(results: dict[str, Any]) -> str:
    """The figures in words."""
    crowd, fan_out = results["crowd"], results["fan_out"]
    received, delivered = crowd["received_ms"], crowd["delivered_ms"]
    return (
        "**Live clients, half over Server-Sent Events, half over WebSockets**\n\n"
        f"{crowd['idle_clients']} idle clients take {crowd['kilobytes_per_client']} kB each of delivery's memory and"
        f" {crowd['idle_cpu_percent']} % of a core. Beside them {crowd['watched_conversations']} watched conversations"
        f" at {crowd['rate_per_second']:g} messages/s: submit → received p50 {received['p50']}, p99 {received['p99']},"
        f" max {received['max']} ms; of it delivery (published in Redis → received) p50 {delivered['p50']},"
        f" p99 {delivered['p99']} ms. One conversation with {fan_out['watchers']} watchers, {fan_out['messages']}"
        f" messages: {fan_out['deliveries_per_second']} deliveries/s (delivery took"
        f" {fan_out['delivery_cpu_percent']} % of a core)."
    )
