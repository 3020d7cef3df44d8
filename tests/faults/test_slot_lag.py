"""Change data capture stands still while messages come in: the API takes less and less, step by step, before the slot
is in danger, and everything that it has accepted arrives once the connector is back."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import psycopg
import pytest

from infra.local.postgres import DATABASE, OWNER
from infra.local.stack import Stack
from tests.chat_client import PASSWORD, ChatClient, User

ROOM = "128MB"
TEXTS = ["".join(map(chr, random.choices(range(0x4E00, 0x9FFF), k=16_000))) for _ in range(8)]
"""The longest that a message may have, which no compression makes much shorter: 48 KB each."""
SENDERS = 4
PAUSE_SECONDS = 0.08
"""Between a sender's messages. Each is some 100 KB of WAL: there are seconds between two steps of the ladder, which the
API looks at once per second."""
SECONDS = 240


@contextmanager
def room_for_wal(stack: Stack, room: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """PostgreSQL gives a slot up when it holds back more than this."""
    with psycopg.connect(
        host="127.0.0.1",
        port=stack.ports.postgres,
        dbname=DATABASE,
        user=OWNER,
        password=stack.secrets.database_owner,
        autocommit=True,
    ) as connection:
        connection.execute(f"ALTER SYSTEM SET max_slot_wal_keep_size = '{room}'".encode())
        connection.execute("SELECT pg_reload_conf()")
        try:
            yield connection
        finally:
            connection.execute("ALTER SYSTEM RESET max_slot_wal_keep_size")
            connection.execute("SELECT pg_reload_conf()")


class Steps:
    """The steps of the ladder as `/readyz` tells them, each change once."""

    def __init__(self, client: ChatClient) -> None:
        self.client = client
        self.seen: list[str] = []
        self.alive: set[int] = set()
        self.watching = asyncio.create_task(self._watch())

    def must_still_watch(self) -> None:
        """Raises what has ended the watch."""
        if self.watching.done():
            self.watching.result()

    async def _watch(self) -> None:
        while True:
            answer = await self.client.http.get(f"{self.client.ingest_url}/readyz")
            step = str(answer.json()["admission"])
            if not self.seen or self.seen[-1] != step:
                self.seen.append(step)
            assert (answer.status_code == 503) == (step in {"red", "lost"})
            self.alive.add((await self.client.http.get(f"{self.client.ingest_url}/healthz")).status_code)
            await asyncio.sleep(0.05)

    async def wait_for(self, step: str) -> None:
        deadline = time.monotonic() + SECONDS
        while self.seen[-1:] != [step]:
            self.must_still_watch()
            assert time.monotonic() < deadline, f"{step} was not seen, but {self.seen}"
            await asyncio.sleep(0.05)


async def send_until(
    client: ChatClient, user: User, conversation_id: str, steps: Steps, stop_at: str
) -> tuple[int, int]:
    """Sends until that step is reached: how many were accepted, how many refused."""
    accepted = refused = 0
    deadline = time.monotonic() + SECONDS
    while steps.seen[-1:] != [stop_at]:
        steps.must_still_watch()
        assert time.monotonic() < deadline, steps.seen
        answer = await client.post_message(user, conversation_id, TEXTS[accepted % len(TEXTS)])
        if answer.status_code == 201:
            accepted += 1
        else:
            assert answer.status_code == 503, answer.text
            assert answer.json()["type"].endswith(":overloaded")
            assert int(answer.headers["retry-after"]) >= 1
            refused += 1
        await asyncio.sleep(PAUSE_SECONDS)
    return accepted, refused


async def send_batch(client: ChatClient, user: User, conversation_id: str) -> httpx.Response:
    message = {"conversation_id": conversation_id, "body": {"type": "text", "text": "in a batch"}}
    return await client.http.post(
        f"{client.ingest_url}/v1/messages/batch", json={"messages": [message]}, headers=user.headers
    )


@pytest.mark.timeout(600)
@pytest.mark.long
async def test_the_ladder_is_climbed_in_order_and_nothing_accepted_is_lost(stack: Stack, client: ChatClient) -> None:
    alice = await client.register("alice")
    ids = [await client.create_conversation(alice) for _ in range(SENDERS)]
    steps = Steps(client)
    with room_for_wal(stack, ROOM) as database:
        await steps.wait_for("green")
        stack.stop_program("connect")
        try:
            async with asyncio.TaskGroup() as group:
                sending = [group.create_task(send_until(client, alice, each, steps, "red")) for each in ids]
                await steps.wait_for("yellow")
                assert (await send_batch(client, alice, ids[0])).status_code == 503
            counts = [task.result() for task in sending]
            assert (await client.post_message(alice, ids[0], "no more")).status_code == 503
            assert (await client.get(alice, f"/v1/conversations/{ids[0]}/messages")).status_code == 200
            form = {"grant_type": "password", "username": alice.username, "password": PASSWORD}
            login = await client.http.post(f"{client.ingest_url}/oauth/token", data=form)
            assert login.status_code == 200, "reads go on, and they need tokens"
            slot = database.execute("SELECT wal_status FROM pg_replication_slots").fetchall()
            assert slot in ([("reserved",)], [("extended",)]), slot
        finally:
            stack.start_program("connect")
        await steps.wait_for("green")
        steps.watching.cancel()
    assert steps.seen[:4] == ["green", "yellow", "orange", "red"], steps.seen
    assert steps.seen[-1] == "green"
    assert steps.alive == {200}
    assert all(refused for _, refused in counts) or sum(refused for _, refused in counts) > 0

    for conversation_id in ids:  # one more, so that delivery's answer comes from what was streamed
        await client.send_until_accepted(alice, conversation_id, "the last")
    batch = await send_batch(client, alice, ids[0])
    assert [item["status"] for item in batch.json()["results"]] == [201]
    for number, (conversation_id, (accepted, _)) in enumerate(zip(ids, counts, strict=True)):
        last_seq = 1 + accepted + 1 + (number == 0)
        async with asyncio.timeout(60):
            while (inbox := await head_of(client, alice, conversation_id)) != last_seq:
                await asyncio.sleep(0.2)
        assert inbox == last_seq
        events = await client.read_events(alice, conversation_id)
        assert [event["seq"] for event in events] == list(range(1, last_seq + 1))


async def head_of(client: ChatClient, user: User, conversation_id: str) -> int:
    """The last seq that the timeline app has seen."""
    listed = (await client.get(user, "/v1/conversations")).json()["conversations"]
    return next(int(item["seq"]) for item in listed if item["conversation_id"] == conversation_id)
