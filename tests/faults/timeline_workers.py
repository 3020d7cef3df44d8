"""Timeline workers that a test starts, kills and pauses; a load of messages; and a listener that sees what the workers
do with them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis.asyncio as redis_client
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from redis.exceptions import RedisError

from infra.local.stack import Stack
from schemas import redis_keys
from schemas.redis_keys import decode_live_frame, head_key, timeline_key
from schemas.topics import CONVERSATION_EVENTS
from tests.benchmarks.load import ConnectionPool, Latencies, request_head, run_open_loop
from tests.chat_client import ChatClient, User
from tests.conftest import ROOT

IS_WHOLE = "CHAT4ALL_FAULT_ROUNDS" in os.environ
"""Whether this is `make faults`."""

RATE = 300.0 if IS_WHOLE else 100.0
CONVERSATIONS = 100 if IS_WHOLE else 30
GROUP = "chat4all-timeline"
SECONDS_TO_SETTLE = 90
CONNECTIONS = 32
_NUMBER = re.compile(rb'"text":"#(\d+)"')


@dataclass
class Workers:
    """Timeline workers beside the stack, whose own is stopped meanwhile. Their logs are in `folder`."""

    stack: Stack
    folder: Path
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, *, is_static: bool = True, environment: Mapping[str, str] | None = None) -> None:
        """Starts a worker; a static one is in its group under its name."""
        settings = {
            **{key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ},
            **self.stack.environment_of("timeline"),
            "CHAT4ALL_METRICS_PORT": "0",
            "CHAT4ALL_GROUP_INSTANCE_ID": name if is_static else "",
            **(environment or {}),
        }
        options = ["-L", "uvloop", "-A", "stream_apps.timeline", "-D", str(self.folder / name)]
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                [sys.executable, "-m", "faust", *options, "worker", "-l", "info", "--without-web"],
                cwd=ROOT,
                env=settings,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def signal(self, name: str, number: signal.Signals) -> None:
        self.running[name].send_signal(number)

    def kill(self, name: str) -> None:
        """kill -9."""
        process = self.running.pop(name)
        process.kill()
        process.wait()

    async def stop(self, name: str, *, within_seconds: float = 60) -> int:
        """SIGTERM, which a worker heeds as soon as it has begun to start; the exit status."""
        async with asyncio.timeout(within_seconds):
            while "Starting..." not in self.log(name):
                await asyncio.sleep(0.05)
        process = self.running.pop(name)
        process.terminate()
        try:
            return await asyncio.to_thread(process.wait, within_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            raise

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def end(self) -> None:
        """Kills what is left."""
        for name in list(self.running):
            self.signal(name, signal.SIGCONT)
            self.kill(name)


@dataclass
class Listener:
    """Hears what is published on every conversation's live channel, in the order in which the workers applied it."""

    stack: Stack
    heard: dict[str, list[int]] = field(default_factory=dict)
    at: dict[int, float] = field(default_factory=dict)
    """Number of a message -> when it was heard first, in seconds of time.perf_counter."""

    async def run(self, ready: asyncio.Event) -> None:
        while True:
            with contextlib.suppress(RedisError):
                async with connect_redis(self.stack) as redis, redis.pubsub(ignore_subscribe_messages=True) as channel:
                    await channel.psubscribe("conv:*:live")
                    ready.set()
                    while True:
                        message: Any = await channel.get_message(timeout=1)
                        if message is not None:
                            self._take(message["channel"].decode(), message["data"])
            await asyncio.sleep(0.1)

    def _take(self, channel: str, data: bytes) -> None:
        frame = decode_live_frame(data)
        conversation_id = channel.removeprefix("conv:{").removesuffix("}:live")
        self.heard.setdefault(conversation_id, []).append(frame.seq)
        if number := _NUMBER.search(frame.payload):
            self.at.setdefault(int(number[1]), time.perf_counter())


@dataclass
class Load:
    """Messages at a steady rate over some conversations. All are accepted: the API is not what fails here."""

    stack: Stack
    user: User
    conversation_ids: list[str]
    listener: Listener
    accepted: dict[str, dict[int, str]] = field(default_factory=dict)
    intended: dict[int, float] = field(default_factory=dict)
    conversation_of: dict[int, str] = field(default_factory=dict)
    first_number: int = 0

    async def run(self, rate: float, seconds: float) -> None:
        pool = ConnectionPool(self.stack.ports.ingest_api)
        await pool.open(CONNECTIONS)
        heads = {
            name: request_head(f"/v1/conversations/{name}/messages", self.user.token) for name in self.conversation_ids
        }
        first_number = self.first_number
        self.first_number += int(rate * seconds)

        async def send(index: int, intended: float) -> None:
            number = first_number + index
            conversation_id = self.conversation_ids[number % len(self.conversation_ids)]
            self.intended[number], self.conversation_of[number] = intended, conversation_id
            body = json.dumps({"body": {"type": "text", "text": f"#{number}"}}).encode()
            status, answer = await pool.post(heads[conversation_id], body)
            assert status == 201, answer
            self.accepted.setdefault(conversation_id, {})[json.loads(answer)["seq"]] = f"#{number}"

        try:
            await run_open_loop(rate, seconds, send)
        finally:
            pool.close()

    def latencies(self, conversation_ids: set[str] | None = None) -> Latencies:
        """From the intended start of a request to what the workers published; of these conversations, or of all."""
        found = Latencies()
        for number, intended in self.intended.items():
            if (
                conversation_ids is None or self.conversation_of[number] in conversation_ids
            ) and number in self.listener.at:
                found.record(self.listener.at[number] - intended)
        return found

    async def check_tables(self) -> None:
        """Every accepted message is in its timeline once, in order, without a hole, and nothing else is."""
        last_seqs = {name: max(accepted) for name, accepted in self.accepted.items()}
        async with connect_redis(self.stack) as redis:
            async with asyncio.timeout(SECONDS_TO_SETTLE):
                while await _read_heads(redis, list(last_seqs)) != last_seqs:
                    await asyncio.sleep(0.2)
            for name, accepted in self.accepted.items():
                entries: Any = await redis.xrange(timeline_key(name))
                told = {}
                for entry_id, entry in entries:
                    payload = json.loads(entry[redis_keys.ENTRY_PAYLOAD.encode()])
                    told[int(entry_id.split(b"-")[0])] = payload.get("body", {}).get("text")
                assert told.pop(1, "missing") is None, "the creation"
                assert told == accepted
                assert [int(entry_id.split(b"-")[0]) for entry_id, _ in entries] == [1, *sorted(accepted)]

    def check_heard(self, *, is_whole: bool = True) -> None:
        """Each event was published once, in order; and all were unless a table was rebuilt in between."""
        for name, accepted in self.accepted.items():
            heard = [seq for seq in self.listener.heard[name] if seq > 1]
            assert heard == sorted(set(heard)), f"{name}: once, in order"
            if is_whole:
                assert heard == sorted(accepted), f"{name}: all of it"


async def _read_heads(redis: redis_client.Redis, names: list[str]) -> dict[str, int]:
    with contextlib.suppress(RedisError):
        async with redis.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.hget(head_key(name), redis_keys.HEAD_SEQ)
            answers = await pipeline.execute()
        return {name: int(seq or 0) for name, seq in zip(names, answers, strict=True)}
    return {}


def connect_redis(stack: Stack) -> redis_client.Redis:
    return redis_client.Redis(port=stack.ports.redis, password=stack.secrets.redis)


@asynccontextmanager
async def loaded(stack: Stack, *, conversations: int) -> AsyncIterator[Load]:
    """A load that is ready to run, and a listener that hears already."""
    client = ChatClient(f"http://127.0.0.1:{stack.ports.ingest_api}", f"http://127.0.0.1:{stack.ports.delivery}")
    listener, ready = Listener(stack), asyncio.Event()
    listening = asyncio.create_task(listener.run(ready))
    try:
        await asyncio.wait_for(ready.wait(), 10)
        alice = await client.register("alice")
        yield Load(stack, alice, [await client.create_conversation(alice) for _ in range(conversations)], listener)
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        await client.close()


async def read_lag(stack: Stack) -> int:
    """Records of conversation.events that the group has not committed."""
    bootstrap = f"127.0.0.1:{stack.ports.kafka}"
    partitions = [TopicPartition(CONVERSATION_EVENTS.name, n) for n in range(CONVERSATION_EVENTS.partitions)]
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap)
    await admin.start()
    await consumer.start()
    try:
        committed = await admin.list_consumer_group_offsets(GROUP)
        ends = await consumer.end_offsets(partitions)
    finally:
        await consumer.stop()
        await admin.close()
    return sum(ends[one] - max(0, committed[one].offset if one in committed else 0) for one in partitions)


async def wait_until_committed(stack: Stack) -> None:
    """Until the group has acknowledged everything there is."""
    async with asyncio.timeout(SECONDS_TO_SETTLE):
        while await read_lag(stack):
            await asyncio.sleep(0.5)


async def warm_up(load: Load) -> None:
    """Until the workers that were started serve every partition."""
    await load.run(RATE, 2)
    await load.check_tables()
    load.intended.clear()


def worst(load: Load) -> float:
    """Seconds that the slowest message took."""
    return load.latencies().milliseconds()["max"] / 1000
