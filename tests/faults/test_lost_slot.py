"""The replication slot is dropped while 5,000 messages are written: the API stops taking writes, and `recover` delivers
all of them, each once, in order; also when it is killed in the middle."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import psycopg
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from prometheus_client import CollectorRegistry
from psycopg.rows import TupleRow

from infra.local.postgres import DATABASE, OWNER
from infra.local.stack import Stack
from ingest_api.fields import new_id
from ingest_api.log_writer import LogWriter, new_entry
from ingest_api.telemetry import WriterMetrics, trace_context
from schemas.envelope import read_envelope
from schemas.ids import conversation_key
from schemas.outboxes import NAME
from schemas.topics import CONVERSATION_EVENTS
from tests.chat_client import ChatClient, User
from tests.conftest import ROOT

CONVERSATIONS = 20
MESSAGES = 5_000
STREAMED = 1_000
"""How many are written before the slot is dropped."""
OVERTAKEN = 40
SECONDS = 90


@contextmanager
def logged_in(stack: Stack, user: str, password: str) -> Iterator[psycopg.Connection[TupleRow]]:
    with psycopg.connect(
        host="127.0.0.1", port=stack.ports.postgres, dbname=DATABASE, user=user, password=password, autocommit=True
    ) as connection:
        yield connection


class Recover:
    """`python -m connectors recover` as an operator runs it."""

    def __init__(self, stack: Stack, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "connectors", "recover", "--output", "json", *arguments],
            cwd=ROOT,
            env={**stack.environment_of("recover"), "PATH": "/usr/bin:/bin"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self) -> tuple[int, dict[str, Any], str]:
        """Exit code, document, and what it said on the way."""
        out, said = self.process.communicate(timeout=240)
        return self.process.returncode, json.loads(out) if out else {}, said

    def wait_for(self, words: str) -> None:
        """Reads what it says until the words come."""
        assert self.process.stderr is not None
        said = []
        for line in self.process.stderr:
            said.append(line)
            if words in line:
                return
        raise AssertionError("".join(said))


@pytest.fixture(autouse=True)
def whole_again(stack: Stack) -> Iterator[None]:
    """Whatever a failure leaves behind, the tests that come after find a stack that streams."""
    yield
    stack.start_program("connect")
    if admission(stack) != "green":
        Recover(stack, "--apply").end()
    deadline = time.monotonic() + SECONDS
    while admission(stack) != "green":
        assert time.monotonic() < deadline, "writes are still refused"
        time.sleep(0.2)


def admission(stack: Stack) -> str:
    """What the API says of it."""
    return str(httpx.get(f"http://127.0.0.1:{stack.ports.ingest_api}/readyz", trust_env=False).json()["admission"])


async def write_past_the_api(
    stack: Stack, alice: User, ids: list[str], messages: int, on_written: Callable[[int], None] = lambda _: None
) -> dict[str, int]:
    """Messages with the API's function and role but without its admission: how each conversation ends. `on_written` is
    told how many are written."""

    async def connect() -> psycopg.AsyncConnection[TupleRow]:
        return await psycopg.AsyncConnection.connect(
            host="127.0.0.1",
            port=stack.ports.postgres,
            dbname=DATABASE,
            user="chat_api",
            password=stack.secrets.database_api,
            autocommit=True,
        )

    writer = LogWriter(
        connect,
        connections=2,
        batch_size=64,
        queue_size=4000,
        timeout_seconds=30,
        metrics=WriterMetrics(CollectorRegistry()),
    )
    writer.start()
    ends: dict[str, int] = {}
    written = 0

    async def send(lane: int) -> None:
        nonlocal written
        for number in range(lane, messages, len(ids)):
            conversation_id = ids[number % len(ids)]
            message_id = new_id()
            entry = new_entry(
                event_id=message_id,
                type="MessageSent",
                conversation_id=conversation_id,
                actor_id=alice.user_id,
                traceparent=trace_context(None),
                message_id=message_id,
                body={"type": "text", "text": str(number)},
            )
            ends[conversation_id] = (await writer.append(entry)).seq
            written += 1
            on_written(written)
            await asyncio.sleep(0.01)

    await asyncio.gather(*(send(lane) for lane in range(len(ids))))
    await writer.close()
    return ends


async def drop_slot(stack: Stack, due: asyncio.Event | None = None, *, is_made_anew: bool = False) -> None:
    """Once it is due, stops Connect and drops the slot; an operator who knows no better makes it anew."""
    if due is not None:
        await due.wait()
    await asyncio.to_thread(stack.stop_program, "connect")
    with logged_in(stack, OWNER, stack.secrets.database_owner) as owner:
        async with asyncio.timeout(SECONDS):
            while owner.execute("SELECT FROM pg_replication_slots WHERE active").fetchone():
                await asyncio.sleep(0.05)
        owner.execute("SELECT pg_drop_replication_slot(%s)", (NAME,))
        if is_made_anew:
            owner.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput', false, false, true)", (NAME,))


async def told_by_kafka(stack: Stack, ids: list[str]) -> dict[str, list[int]]:
    """Conversation -> the seqs that its records tell, in the topic's order."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=f"127.0.0.1:{stack.ports.kafka}", enable_auto_commit=False, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        partitions = [TopicPartition(CONVERSATION_EVENTS.name, n) for n in range(CONVERSATION_EVENTS.partitions)]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        told: dict[str, list[int]] = {conversation_id: [] for conversation_id in ids}
        keys = {conversation_key(conversation_id).encode() for conversation_id in ids}
        while any([await consumer.position(each) < ends[each] for each in partitions]):
            for records in (await consumer.getmany(timeout_ms=500)).values():
                for record in records:
                    if record.key in keys:  # others' records are not all well made: other tests see to that
                        envelope = read_envelope(record.key, record.headers, record.value)
                        told[envelope.conversation_id].append(envelope.seq)
        return told
    finally:
        await consumer.stop()


async def wait_for_admission(client: ChatClient, step: str) -> None:
    async with asyncio.timeout(SECONDS):
        while (await client.http.get(f"{client.ingest_url}/readyz")).json()["admission"] != step:
            await asyncio.sleep(0.1)


@pytest.mark.long
async def test_a_slot_dropped_under_load_is_recovered_whole_and_in_order(stack: Stack, client: ChatClient) -> None:
    alice = await client.register("alice")
    ids = [await client.create_conversation(alice) for _ in range(CONVERSATIONS)]
    due = asyncio.Event()
    dropping = asyncio.create_task(drop_slot(stack, due))
    ends = await write_past_the_api(
        stack, alice, ids, MESSAGES, lambda written: due.set() if written >= STREAMED else None
    )
    await dropping
    await asyncio.to_thread(stack.start_program, "connect")
    await wait_for_admission(client, "lost")
    assert (await client.post_message(alice, ids[0], "refused")).status_code == 503
    before = await told_by_kafka(stack, ids)
    missing = sum(ends[each] - len(set(before[each])) for each in ids)
    assert 0 < missing < MESSAGES

    code, look, said = await asyncio.to_thread(Recover(stack).end)
    assert (code, look["entries"]) == (2, missing), said
    assert [each["slot"] for each in look["slots"]] == [NAME]
    await asyncio.sleep(2)
    await wait_for_admission(client, "lost")  # looking has changed nothing
    assert await told_by_kafka(stack, ids) == before

    killed = await asyncio.to_thread(Recover, stack, "--apply", "--rate", "500")
    await asyncio.to_thread(killed.wait_for, "brought back")
    assert (await client.post_message(alice, ids[0], "refused")).status_code == 503
    killed.process.send_signal(signal.SIGKILL)
    await asyncio.to_thread(killed.process.communicate)
    code, done, said = await asyncio.to_thread(Recover(stack, "--apply").end)
    assert code == 0, said
    assert 0 < done["entries"] < missing, "it goes on where it was"

    await wait_for_admission(client, "green")
    for conversation_id in ids:
        ends[conversation_id] = (await client.send_until_accepted(alice, conversation_id, "after"))["seq"]
    await wait_until_streamed(client, alice, ends)
    told = await told_by_kafka(stack, ids)
    assert told == {each: list(range(1, ends[each] + 1)) for each in ids}, "each once, in order, without a hole"
    for conversation_id in ids:
        events = await client.read_events(alice, conversation_id)
        assert [event["seq"] for event in events] == list(range(1, ends[conversation_id] + 1))

    code, look, said = await asyncio.to_thread(Recover(stack).end)
    assert (code, look["entries"], look["slots"]) == (0, 0, []), said
    code, done, said = await asyncio.to_thread(Recover(stack, "--apply").end)
    assert (code, done["entries"]) == (0, 0), said
    assert sum(map(len, (await told_by_kafka(stack, ids)).values())) == sum(ends.values())


@pytest.mark.long
async def test_what_was_overtaken_is_brought_back_without_harm(stack: Stack, client: ChatClient) -> None:
    """Somebody drops the slot and makes it anew by hand, so the API never stops: new events come before old ones."""
    alice, bob = await client.register("alice"), await client.register("bob")
    conversation_id = await client.create_conversation(alice, bob)
    await wait_until_streamed(client, alice, {conversation_id: 1})
    shown: list[int] = []

    async def watch() -> None:
        async with client.stream(bob) as events:
            async for event in events:
                assert event.event != "gap"
                if event.event == "MessageSent":
                    shown.append(json.loads(event.data)["seq"])

    watching = asyncio.create_task(watch())
    await asyncio.to_thread(stack.stop_program, "connect")
    await write_past_the_api(stack, alice, [conversation_id], OVERTAKEN)
    await drop_slot(stack, is_made_anew=True)
    await asyncio.to_thread(stack.start_program, "connect")
    new = await client.send_until_accepted(alice, conversation_id, "new")
    assert new["seq"] == OVERTAKEN + 2

    code, done, said = await asyncio.to_thread(Recover(stack, "--apply").end)
    assert code == 0, said
    assert "it was made anew" in said
    assert done["entries"] == OVERTAKEN
    ends = {conversation_id: (await client.send_until_accepted(alice, conversation_id, "last"))["seq"]}
    await wait_until_streamed(client, alice, ends)

    told = (await told_by_kafka(stack, [conversation_id]))[conversation_id]
    assert told == [1, new["seq"], *range(2, new["seq"]), ends[conversation_id]], "each once; what is new came first"
    events = await client.read_events(bob, conversation_id)
    assert [event["seq"] for event in events] == list(range(1, ends[conversation_id] + 1))
    async with asyncio.timeout(SECONDS):
        while shown[-1:] != [ends[conversation_id]]:
            await asyncio.sleep(0.1)
    watching.cancel()
    assert shown == list(range(2, ends[conversation_id] + 1)), "shown once, in order, whatever came when"


async def wait_until_streamed(client: ChatClient, user: User, ends: dict[str, int]) -> None:
    """Until the timeline app has reached these seqs."""
    deadline = time.monotonic() + SECONDS
    while True:
        listed = (await client.get(user, "/v1/conversations", limit=100)).json()["conversations"]
        heads = {item["conversation_id"]: item["seq"] for item in listed}
        if all(heads.get(each, 0) >= seq for each, seq in ends.items()):
            return
        assert time.monotonic() < deadline, heads
        await asyncio.sleep(0.2)
