"""Several API processes on one database: one id is one message, and a process that dies takes nothing with it."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import httpx
import psycopg
import pytest

from infra.local.postgres import DATABASE, OWNER
from infra.local.stack import Stack
from tests.api_process import ApiProcess, api_process
from tests.chat_client import ChatClient, User
from tests.e2e.test_path import take_until, texts

CONVERSATIONS = 200
SENDERS = 40
LEAST_KILLS = 3
SECONDS_OF_KILLS = float(os.environ.get("CHAT4ALL_KILL_SECONDS", "5"))


@pytest.fixture
async def two(stack: Stack) -> AsyncIterator[tuple[ApiProcess, ApiProcess]]:
    async with api_process(stack) as first, api_process(stack) as second:
        yield first, second


def client_of(stack: Stack, api: ApiProcess) -> ChatClient:
    return ChatClient(api.url, f"http://127.0.0.1:{stack.ports.delivery}")


async def test_one_id_a_hundred_times_at_once_over_two_processes_is_one_message(
    stack: Stack, client: ChatClient, two: tuple[ApiProcess, ApiProcess]
) -> None:
    alice = await client.register("alice")
    conversation_id, elsewhere = [await client.create_conversation(alice) for _ in range(2)]
    message_id = str(uuid.uuid4())
    clients = [client_of(stack, api) for api in two]
    async with client.stream(alice) as events:
        answers = await asyncio.gather(
            *(
                clients[number % 2].post_message(alice, conversation_id, "the one", message_id=message_id)
                for number in range(100)
            )
        )
        assert sorted(answer.status_code for answer in answers) == [200] * 99 + [201]
        assert {answer.json()["seq"] for answer in answers} == {2}
        assert sum(answer.headers.get("idempotency-replayed") == "true" for answer in answers) == 99
        for other in clients:
            assert (
                await other.post_message(alice, conversation_id, "another", message_id=message_id)
            ).status_code == 409
            assert (await other.post_message(alice, elsewhere, "the one", message_id=message_id)).status_code == 409
        await client.send(alice, conversation_id, "the next")
        received = await take_until(events, messages=2)
    assert texts(received) == ["the one", "the next"]
    assert [json.loads(event.data)["seq"] for event in received] == [2, 3]
    for other in clients:
        await other.close()


@dataclass
class Senders:
    """They send through whichever process, and repeat a message under its id until it is accepted."""

    user: User
    apis: list[ApiProcess]
    conversation_ids: list[str]
    http: httpx.AsyncClient
    accepted: dict[str, tuple[str, int]] = field(default_factory=dict)
    repeats: int = 0

    is_over: bool = False

    async def run(self) -> None:
        while not self.is_over:
            await self._send(random.choice(self.conversation_ids), str(uuid.uuid4()))

    async def _send(self, conversation_id: str, message_id: str) -> None:
        body = {"message_id": message_id, "body": {"type": "text", "text": message_id}}
        async with asyncio.timeout(60):
            while True:
                api = random.choice(self.apis)
                url = f"{api.url}/v1/conversations/{conversation_id}/messages"
                try:
                    answer = await self.http.post(url, json=body, headers=self.user.headers)
                    if answer.status_code in {200, 201}:
                        break
                    assert answer.status_code == 503, answer.text
                except httpx.TransportError:
                    pass
                self.repeats += 1
                await asyncio.sleep(0.02)
        assert message_id not in self.accepted
        self.accepted[message_id] = (conversation_id, answer.json()["seq"])


async def test_three_processes_that_are_killed_at_random_leave_dense_seqs(stack: Stack, client: ChatClient) -> None:
    alice = await client.register("alice")
    ids = [await client.create_conversation(alice) for _ in range(CONVERSATIONS)]
    kills = 0
    async with AsyncExitStack() as exits:
        apis = [await exits.enter_async_context(api_process(stack)) for _ in range(3)]
        http = await exits.enter_async_context(httpx.AsyncClient(trust_env=False, timeout=30))
        senders = Senders(alice, apis, ids, http)
        end = time.monotonic() + SECONDS_OF_KILLS
        sending = [asyncio.create_task(senders.run()) for _ in range(SENDERS)]
        while time.monotonic() < end or kills < LEAST_KILLS:
            await asyncio.sleep(random.uniform(0.3, 1.0))
            victim = random.choice(apis)
            await victim.end(signal.SIGKILL)
            kills += 1
            await victim.start()
        senders.is_over = True
        await asyncio.gather(*sending)

    assert senders.repeats > 0, "no kill hit a request"
    with psycopg.connect(
        host="127.0.0.1", port=stack.ports.postgres, dbname=DATABASE, user=OWNER, password=stack.secrets.database_owner
    ) as connection:
        rows = connection.execute(
            "SELECT conversation_id::text, seq, event_id::text FROM conversation_log"
            " WHERE conversation_id = ANY (%s::uuid[])",
            (ids,),
        ).fetchall()
        waiting = connection.execute("SELECT count(*) FROM outbox").fetchone()
    seqs: dict[str, list[int]] = {conversation_id: [] for conversation_id in ids}
    stored: dict[str, tuple[str, int]] = {}
    for conversation_id, seq, event_id in rows:
        seqs[conversation_id].append(seq)
        stored[event_id] = (conversation_id, seq)
    for conversation_id, found in seqs.items():
        assert sorted(found) == list(range(1, len(found) + 1)), conversation_id
    assert {key: stored[key] for key in senders.accepted} == senders.accepted
    assert len(senders.accepted) == len(stored) - CONVERSATIONS, "a message was stored that nobody holds a 2xx for"
    assert waiting == (0,)
    assert not any("deadlock detected" in line for line in stack.log_tail("postgres", 100_000))


async def test_a_process_that_is_told_to_end_finishes_what_it_has_begun(stack: Stack, client: ChatClient) -> None:
    alice = await client.register("alice")
    conversation_id = await client.create_conversation(alice)
    statuses: list[int | None] = []
    async with api_process(stack) as api, httpx.AsyncClient(trust_env=False) as http:

        async def keep_sending() -> None:
            while True:
                body = {"body": {"type": "text", "text": "x"}}
                url = f"{api.url}/v1/conversations/{conversation_id}/messages"
                try:
                    answer = await http.post(url, json=body, headers=alice.headers)
                except httpx.ConnectError:
                    return
                except httpx.TransportError:
                    statuses.append(None)  # it was cut off: no answer
                    return
                statuses.append(answer.status_code)
                if answer.status_code != 201:
                    assert answer.json()["type"].endswith(":shutting-down")
                    assert answer.headers["connection"] == "close"
                    return

        sending = [asyncio.create_task(keep_sending()) for _ in range(20)]
        await asyncio.sleep(1)
        status = await api.end(signal.SIGTERM)
        await asyncio.wait_for(asyncio.gather(*sending), 20)
        lines = [json.loads(line) for line in api.read_log().splitlines()]
    assert status in {0, -signal.SIGTERM}
    assert set(statuses) <= {201, 503}, statuses
    assert statuses.count(201) > 20
    assert {"time", "level", "logger", "message"} <= set(lines[0])
    stored = len(await client.read_events(alice, conversation_id)) - 1
    assert stored == statuses.count(201)
