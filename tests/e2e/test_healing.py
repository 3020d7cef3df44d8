"""What heals by itself or by one command: a flushed Redis, a deleted connector, a stopped part."""

from __future__ import annotations

import asyncio
import json

import redis.asyncio as redis_client

from infra.local.stack import Stack
from tests.chat_client import ChatClient
from tests.e2e.test_path import take_until, texts
from tests.second_worker import run_connectors


async def test_redis_flushed_under_load_heals(stack: Stack, client: ChatClient) -> None:
    alice, bob = await client.register("alice"), await client.register("bob")
    ids = [await client.create_conversation(alice, bob) for _ in range(5)]
    redis = redis_client.Redis(port=stack.ports.redis, password=stack.secrets.redis)
    total = 500

    async def send_all() -> None:
        for number in range(total):
            await client.send(alice, ids[number % 5], str(number))
            if number in {150, 300}:
                await redis.flushall()
            await asyncio.sleep(0.005)

    async with redis, client.stream(bob) as events:
        sending = asyncio.create_task(send_all())
        received = await take_until(events, messages=total, within_seconds=60)
        await sending

    assert sorted(map(int, texts(received))) == list(range(total))
    for conversation_id in ids:
        seqs = [m["seq"] for m in (json.loads(e.data) for e in received) if m["conversation_id"] == conversation_id]
        assert seqs == list(range(2, total // 5 + 2))
        assert [e["seq"] for e in await client.read_events(bob, conversation_id)] == list(range(1, total // 5 + 2))
    inbox = (await client.get(bob, "/v1/conversations")).json()["conversations"]
    assert {conversation["conversation_id"] for conversation in inbox} == set(ids)
    assert {conversation["seq"] for conversation in inbox} == {total // 5 + 1}


async def test_what_is_written_while_the_connector_is_deleted_arrives_after_apply(
    stack: Stack, client: ChatClient
) -> None:
    alice = await client.register("alice")
    conversation_id = await client.create_conversation(alice)
    async with client.stream(alice) as events:
        await client.send(alice, conversation_id, "before")
        assert texts(await take_until(events, messages=1)) == ["before"]

        deleted = run_connectors(stack, "delete", "chat4all-outbox", "--yes")
        assert deleted.returncode == 0, deleted.stderr
        for number in range(50):
            await client.send(alice, conversation_id, str(number))
        # While the connector is away a reader who asks for what was accepted gets it from Postgres.
        page = await client.get(alice, f"/v1/conversations/{conversation_id}/messages", min_seq=52, limit=200)
        assert len(page.json()["messages"]) == 51

        applied = run_connectors(stack, "apply", "connectors/configs/outbox.json")
        assert applied.returncode == 0, applied.stderr
        assert texts(await take_until(events, messages=50)) == [str(number) for number in range(50)]
    again = run_connectors(stack, "apply", "connectors/configs/outbox.json")
    assert again.returncode == 0, again.stderr
    assert "unchanged" in again.stdout
