"""The operators' tools of the stream side on the whole real system, while it is in use."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
import redis.asyncio as redis_client
from aiokafka import AIOKafkaProducer

from infra.local.stack import Stack
from schemas import redis_keys
from schemas.ids import conversation_key
from schemas.topics import CONVERSATION_EVENTS, RECEIPT_EVENTS
from stream_apps.log_scanner import LogScanner
from stream_apps.rebuilding import Rebuilder
from tests.chat_client import ChatClient, User
from tests.conftest import ROOT

PATIENCE_SECONDS = 90.0


async def run(stack: Stack, module: str, *arguments: str, **variables: str) -> tuple[int, str, str]:
    """One of the commands, as an operator would run it: exit status, output, errors."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments),
        cwd=ROOT,
        env={"PATH": os.defpath, **stack.environment_of("timeline"), **variables},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()


def connect(stack: Stack, database: int = 0) -> redis_client.Redis:
    return redis_client.Redis(port=stack.ports.redis, password=stack.secrets.redis, db=database)


async def head_seq(redis: redis_client.Redis, conversation_id: str) -> int:
    return int(await redis.hget(redis_keys.head_key(conversation_id), "seq") or 0)


async def wait_for_head(redis: redis_client.Redis, conversation_id: str, seq: int) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await head_seq(redis, conversation_id) < seq:
            await asyncio.sleep(0.1)


async def test_a_redis_that_was_flushed_while_nothing_happens_is_filled_again(stack: Stack, client: ChatClient) -> None:
    alice, bob = await client.register("alice"), await client.register("bob")
    ids = [await client.create_conversation(alice, bob) for _ in range(5)]
    for conversation_id in ids:
        await client.send(alice, conversation_id, "hello")
    async with connect(stack) as redis:
        for conversation_id in ids:
            await wait_for_head(redis, conversation_id, 2)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await redis.exists(redis_keys.TABLES_MARKER):
                await asyncio.sleep(0.1)
        await redis.flushall()
        for conversation_id in ids:
            await wait_for_head(redis, conversation_id, 2)
            assert await redis.xlen(redis_keys.timeline_key(conversation_id)) == 2
        for user in (alice, bob):
            async with asyncio.timeout(PATIENCE_SECONDS):  # users come after conversations
                while await conversations_of(redis, user) != {redis_keys.USER_COMPLETE, *ids}:
                    await asyncio.sleep(0.1)


async def conversations_of(redis: redis_client.Redis, user: User) -> set[str]:
    table: Any = await redis.hgetall(redis_keys.user_conversations_key(user.user_id))
    return {name.decode() for name in table}


@dataclass
class Traffic:
    """Messages that go into some conversations while their tables are rebuilt by force, and what is seen of it."""

    stack: Stack
    client: ChatClient
    ids: list[str]
    is_over: asyncio.Event = field(default_factory=asyncio.Event)
    rebuilt: int = 0

    async def send(self, user: User, total: int, *, per_second: float) -> None:
        for number in range(total):
            await self.client.send(user, self.ids[number % len(self.ids)], str(number))
            await asyncio.sleep(1 / per_second)

    async def rebuild(self) -> None:
        """Again and again, without the command around it."""
        reader = self.stack.environment_of("timeline")
        login = {
            "host": "127.0.0.1",
            "port": self.stack.ports.postgres,
            "dbname": reader["CHAT4ALL_DATABASE_NAME"],
            "user": reader["CHAT4ALL_DATABASE_USER"],
            "password": reader["CHAT4ALL_DATABASE_PASSWORD"],
        }
        async with connect(self.stack) as redis, LogScanner(login) as log:
            while not self.is_over.is_set():
                done = await Rebuilder(log, redis).rebuild(self.ids, force=True)
                assert not done.unknown
                self.rebuilt += done.rebuilt
                await asyncio.sleep(0.05)

    async def watch_heads(self) -> None:
        seen = dict.fromkeys(self.ids, 0)
        async with connect(self.stack) as redis:
            while not self.is_over.is_set():
                for name in self.ids:
                    seq = await head_seq(redis, name)
                    assert seq >= seen[name], "a table was taken back"
                    seen[name] = seq
                await asyncio.sleep(0.01)

    async def read_history(self, user: User) -> None:
        seen = dict.fromkeys(self.ids, 0)
        while not self.is_over.is_set():
            for name in self.ids:
                answer = await self.client.get(user, f"/v1/conversations/{name}/messages", limit=200)
                seqs = [message["seq"] for message in answer.json()["messages"]]
                assert seqs == list(range(2, 2 + len(seqs))), "a page had a hole"
                assert len(seqs) >= seen[name], "a page was taken back"
                seen[name] = len(seqs)
                await asyncio.sleep(0.01)

    async def receive(self, events: Any, total: int) -> None:
        """Every message live, once, in order, and no gap."""
        received: dict[str, list[int]] = {name: [] for name in self.ids}
        while sum(map(len, received.values())) < total:
            event = await anext(events)
            assert event.event in {"ready", "ConversationCreated", "MessageSent"}, event
            if event.event == "MessageSent":
                told = json.loads(event.data)
                received[told["conversation_id"]].append(told["seq"])
        self.is_over.set()
        assert all(seqs == list(range(2, total // len(self.ids) + 2)) for seqs in received.values())


@pytest.mark.long
async def test_backfill_beside_live_traffic_neither_flickers_nor_takes_anything_back(
    stack: Stack, client: ChatClient
) -> None:
    alice, bob = await client.register("alice"), await client.register("bob")
    ids = [await client.create_conversation(alice, bob) for _ in range(5)]
    traffic = Traffic(stack, client, ids)
    total = 500
    async with client.stream(bob) as events, asyncio.timeout(240), asyncio.TaskGroup() as group:
        group.create_task(traffic.receive(events, total))
        group.create_task(traffic.send(alice, total, per_second=150))
        group.create_task(traffic.rebuild())
        group.create_task(traffic.watch_heads())
        group.create_task(traffic.read_history(bob))
    assert traffic.rebuilt >= 5 * len(ids)
    names = [word for name in ids for word in ("--conversation", name)]
    status, output, _ = await run(stack, "stream_apps.audit", "check", *names, "--json")
    report = json.loads(output)
    assert (status, report["faults"]) == (0, [])
    assert report["records"] >= total


async def metric(stack: Stack, name: str) -> float:
    """A sample of the audit program's metrics, 0 if there is none."""
    async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
        text = (await http.get(f"http://127.0.0.1:{stack.ports.audit_metrics}/metrics")).text
    values = [line.rsplit(" ", 1)[1] for line in text.splitlines() if line.startswith(f"{name} ")]
    return float(values[0]) if values else 0.0


async def make_conversation(client: ChatClient, stack: Stack, messages: int) -> tuple[User, str]:
    alice, bob = await client.register("alice"), await client.register("bob")
    conversation_id = await client.create_conversation(alice, bob)
    for number in range(messages):
        await client.send(alice, conversation_id, str(number))
    async with connect(stack) as redis:
        await wait_for_head(redis, conversation_id, messages + 1)
    return alice, conversation_id


def headers_of(event: dict[str, Any]) -> list[tuple[str, bytes]]:
    return [
        ("id", event["event_id"].encode()),
        ("eventType", event["type"].encode()),
        ("seq", str(event["seq"]).encode()),
    ]


async def test_what_was_planted_in_kafka_and_redis_is_found_and_redis_is_repaired(
    stack: Stack, client: ChatClient
) -> None:
    alice, conversation_id = await make_conversation(client, stack, 5)
    _, other = await make_conversation(client, stack, 5)
    names = ("--conversation", conversation_id, "--conversation", other)
    status, output, _ = await run(stack, "stream_apps.audit", "check", *names)
    assert (status, "nothing is wrong" in output) == (0, True)

    foreign, doubled, altered = (await client.read_events(alice, conversation_id))[1:4]
    producer = AIOKafkaProducer(bootstrap_servers=f"127.0.0.1:{stack.ports.kafka}")
    await producer.start()
    for key, event, value in [
        (conversation_id, doubled, json.dumps(doubled, separators=(",", ":"))),
        (conversation_id, altered, json.dumps({**altered, "body": {"type": "text", "text": "forged"}})),
        (other, foreign, json.dumps(foreign)),
    ]:
        await producer.send_and_wait(
            CONVERSATION_EVENTS.name,
            key=conversation_key(key).encode(),
            value=value.encode(),
            headers=headers_of(event),
        )
    await producer.stop()
    async with connect(stack) as redis:
        await redis.xdel(redis_keys.timeline_key(other), "4-0")
    status, output, errors = await run(
        stack, "stream_apps.audit", "check", *names, "--repair", "--json", "--confirm-seconds", "1"
    )
    report = json.loads(output or errors)
    found = {(f["place"], f["kind"], f["conversation_id"]) for f in report["faults"]}
    assert status == 1
    assert found >= {("kafka", "altered", conversation_id), ("kafka", "foreign", other), ("redis", "gap", other)}
    assert report["redelivered"] == 3
    assert {fault["place"] for fault in report["left"]} == {"kafka"}
    async with connect(stack) as redis:
        assert await redis.xlen(redis_keys.timeline_key(other)) == 6
    # The program that looks all the time finds it by itself.
    async with asyncio.timeout(PATIENCE_SECONDS):
        for kind in ("altered", "foreign"):
            while not await metric(stack, f'audit_faults_total{{kind="{kind}",place="kafka"}}'):
                await asyncio.sleep(0.5)


async def test_dead_letters_are_listed_shown_redriven_and_dropped(stack: Stack) -> None:
    name = str(uuid.uuid4())
    producer = AIOKafkaProducer(bootstrap_servers=f"127.0.0.1:{stack.ports.kafka}")
    await producer.start()
    sent = await producer.send_and_wait(
        CONVERSATION_EVENTS.name, key=f"nonsense:{name}".encode(), value=b'{"some": "text"}', headers=[("seq", b"1")]
    )
    await producer.stop()

    async def letters(*options: str) -> list[dict[str, Any]]:
        status, output, errors = await run(
            stack, "stream_apps.dead_letters", "list", "--json", "--topic", CONVERSATION_EVENTS.name, *options
        )
        assert status in (0, 1), errors
        return [one for one in map(json.loads, output.splitlines()) if name in (one["key"] or "")]

    async with asyncio.timeout(PATIENCE_SECONDS):
        while not (found := await letters()):
            await asyncio.sleep(0.5)
    (letter,) = found
    assert letter["origin"] == f"{sent.topic}:{sent.partition}:{sent.offset}"
    assert letter["reason"]
    assert "text" not in json.dumps(letter)

    status, output, _ = await run(stack, "stream_apps.dead_letters", "show", letter["address"])
    assert (status, json.loads(output)["value"]) == (0, '{"some": "text"}')

    status, output, errors = await run(stack, "stream_apps.dead_letters", "redrive", letter["address"], "--yes")
    assert (status, "again" in output) == (0, True), errors
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not (found := await letters()):
            await asyncio.sleep(0.5)
    (again,) = found
    assert again["address"] != letter["address"]
    _, output, _ = await run(stack, "stream_apps.dead_letters", "show", again["address"])
    assert json.loads(output)["headers"]["redrivenFrom"] == letter["address"]

    status, _, errors = await run(stack, "stream_apps.dead_letters", "redrive", letter["address"], "--yes")
    assert (status, "redriven already" in errors) == (1, True)
    status, output, _ = await run(stack, "stream_apps.dead_letters", "drop", again["address"], "--yes")
    assert (status, "is dropped" in output) == (0, True)
    assert await letters() == []
    assert [one["outcome"] for one in await letters("--settled")] == ["redriven", "dropped"]

    status, _, errors = await run(stack, "stream_apps.dead_letters", "show", "conversation.events:0:999999999")
    assert (status, "no dead letter" in errors) == (1, True)
    assert (await run(stack, "stream_apps.dead_letters", "show", "nowhere:0:1"))[0] == 2
    assert (await run(stack, "stream_apps.dead_letters", "drop"))[0] == 2
    away = "127.0.0.1:1"
    assert (await run(stack, "stream_apps.dead_letters", "list", CHAT4ALL_KAFKA_BOOTSTRAP=away))[0] == 3


async def test_a_receipt_that_cannot_be_read_is_a_dead_letter_of_its_own_topic(stack: Stack) -> None:
    name = str(uuid.uuid4())
    producer = AIOKafkaProducer(bootstrap_servers=f"127.0.0.1:{stack.ports.kafka}")
    await producer.start()
    await producer.send_and_wait(RECEIPT_EVENTS.name, key=conversation_key(name).encode(), value=b"{}")
    await producer.stop()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            _, output, _ = await run(stack, "stream_apps.dead_letters", "list", "--json")
            found = [one for one in map(json.loads, output.splitlines()) if name in (one["key"] or "")]
            if found:
                break
            await asyncio.sleep(0.5)
    assert found[0]["address"].startswith("receipt.events.dead-letter:0:")
    assert (await run(stack, "stream_apps.dead_letters", "drop", found[0]["address"], "--yes"))[0] == 0


async def entries_of(redis: redis_client.Redis, key: str) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """A timeline without the passages: what is applied again is applied at another time."""
    entries: Any = await redis.xrange(key)
    return [
        (name, {field: value for field, value in fields.items() if field != redis_keys.ENTRY_PASSAGE.encode()})
        for name, fields in entries
    ]


async def test_a_replay_into_an_empty_database_makes_the_same_tables_under_other_epochs(
    stack: Stack, client: ChatClient
) -> None:
    alice, early = await make_conversation(client, stack, 3)
    await asyncio.sleep(0.1)
    since = datetime.now(UTC).isoformat()
    _, late = await make_conversation(client, stack, 20)
    await client.send(alice, early, "after the time from which it is replayed")
    async with connect(stack) as redis, connect(stack, 1) as copy:
        await wait_for_head(redis, early, 5)
        status, _, errors = await run(stack, "stream_apps.timeline.replay", "--since", since)
        assert (status, "holds tables" in errors) == (1, True)
        status, output, errors = await run(
            stack, "stream_apps.timeline.replay", "--since", since, "--redis-database", "1", "--json"
        )
        assert status == 0, errors
        done = json.loads(output)
        assert done["applied"] >= 21
        assert done["rebuilt"] >= 1, "the early conversation begins before the records"
        for conversation_id in (early, late):
            ours: Any = await redis.hgetall(redis_keys.head_key(conversation_id))
            theirs: Any = await copy.hgetall(redis_keys.head_key(conversation_id))
            assert ours.pop(b"epoch") != theirs.pop(b"epoch")
            assert ours == theirs
            key = redis_keys.timeline_key(conversation_id)
            assert await entries_of(redis, key) == await entries_of(copy, key)
        names = ("--conversation", early, "--conversation", late)
        status, output, _ = await run(
            stack, "stream_apps.audit", "check", *names, "--no-kafka", CHAT4ALL_REDIS_DATABASE="1"
        )
        assert status == 0, output
        await copy.flushdb()


async def test_workers_say_how_they_are(stack: Stack) -> None:
    async with httpx.AsyncClient(trust_env=False) as http:
        timeline = f"http://127.0.0.1:{stack.ports.timeline_metrics}"
        async with asyncio.timeout(PATIENCE_SECONDS):  # it may have been started a moment ago
            while (health := await http.get(f"{timeline}/healthz")).status_code != 200:
                await asyncio.sleep(0.2)
        told = health.json()
        assert told["status"] == "running"
        assert len(told["assignment"]) == CONVERSATION_EVENTS.partitions + RECEIPT_EVENTS.partitions
        metrics = (await http.get(f"{timeline}/metrics")).text
        assert 'timeline_partition_lag_records{partition="11",topic="conversation.events"}' in metrics
        assert "timeline_seconds_without_progress" in metrics
        audit = f"http://127.0.0.1:{stack.ports.audit_metrics}"
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (await http.get(f"{audit}/healthz")).json()["status"] != "running":
            assert time.monotonic() < deadline
            await asyncio.sleep(0.5)
        metrics = (await http.get(f"{audit}/metrics")).text
        assert "audit_kafka_is_followed 1.0" in metrics
        assert "audit_last_look_timestamp_seconds" in metrics
        assert (await http.get(f"{audit}/nothing")).status_code == 404


@pytest.mark.long
async def test_the_last_messages_of_a_conversation_that_kafka_never_got_reach_the_tables(
    stack: Stack, client: ChatClient
) -> None:
    """As after a lost replication slot: the log has them, no record ever comes."""
    alice, conversation_id = await make_conversation(client, stack, 2)
    stack.stop_program("timeline")
    try:
        await client.send(alice, conversation_id, "nobody carries this")
        async with connect(stack) as redis:
            await wait_for_head(redis, conversation_id, 4)
    finally:
        stack.start_program("timeline")
