"""kill -9 of each process in turn, under load: it comes back by itself, and every accepted message is in the timeline
once, in order. CHAT4ALL_FAULT_ROUNDS repeats the whole (make faults sets it)."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from infra.local.stack import Stack
from tests.chat_client import ChatClient, User

ROUNDS = int(os.environ.get("CHAT4ALL_FAULT_ROUNDS", "1"))
MESSAGES_PER_SECOND = 100
CONVERSATIONS = 10
SECONDS_BEFORE_KILL = 2
SECONDS_AFTER_KILL = 10
SECONDS_TO_SETTLE = 60
PROGRAMS = ("ingest-api", "timeline", "postgres")
LEFT_TO_FAULTS = ("connect", "kafka", "redis", "delivery", "audit")


@dataclass
class Load:
    """Messages sent at a steady rate, whatever becomes of them; each retried under its id until it is accepted."""

    client: ChatClient
    user: User
    conversation_ids: list[str]
    accepted: dict[str, dict[int, str]] = field(default_factory=dict)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def run(self, seconds: float) -> None:
        started = time.monotonic()
        for number in range(int(seconds * MESSAGES_PER_SECOND)):
            await asyncio.sleep(max(0.0, started + number / MESSAGES_PER_SECOND - time.monotonic()))
            conversation_id = self.conversation_ids[number % len(self.conversation_ids)]
            self.tasks.append(asyncio.create_task(self._send(conversation_id, str(number))))

    async def _send(self, conversation_id: str, text: str) -> None:
        answer = await self.client.send_until_accepted(self.user, conversation_id, text)
        in_conversation = self.accepted.setdefault(conversation_id, {})
        assert answer["seq"] not in in_conversation, "two messages hold one seq"
        in_conversation[answer["seq"]] = text


class Watcher:
    """A live client that reconnects with its cursor whenever its stream breaks."""

    def __init__(self, client: ChatClient, user: User) -> None:
        self.client = client
        self.user = user
        self.seen: dict[str, list[int]] = {}
        self.gaps = 0
        self.last_event_id: str | None = None

    async def run(self) -> None:
        while True:
            try:
                async with self.client.stream(self.user, last_event_id=self.last_event_id) as events:
                    async for event in events:
                        self._take(event.event, event.data)
                        self.last_event_id = event.id or self.last_event_id
            except (httpx.TransportError, httpx.HTTPStatusError):
                await asyncio.sleep(0.2)

    def _take(self, name: str, data: str) -> None:
        if name == "gap":
            self.gaps += 1
        elif name == "MessageSent":
            message = json.loads(data)
            self.seen.setdefault(message["conversation_id"], []).append(message["seq"])


async def read_when_settled(client: ChatClient, user: User, conversation_id: str, seq: int) -> list[dict[str, Any]]:
    """The conversation's events once the Redis table has reached the seq."""
    async with asyncio.timeout(SECONDS_TO_SETTLE):
        while True:
            try:
                inbox = await client.get(user, "/v1/conversations")
                heads = {c["conversation_id"]: c["seq"] for c in inbox.json().get("conversations", [])}
                if heads.get(conversation_id, 0) >= seq:
                    return await client.read_events(user, conversation_id)
            except (httpx.TransportError, httpx.HTTPStatusError):
                pass
            await asyncio.sleep(0.2)


@pytest.mark.parametrize("round_number", range(ROUNDS))
@pytest.mark.parametrize(
    "program", [*PROGRAMS, *(pytest.param(each, marks=pytest.mark.long) for each in LEFT_TO_FAULTS)]
)
async def test_a_killed_process_comes_back_and_nothing_is_lost(
    stack: Stack, client: ChatClient, program: str, round_number: int
) -> None:
    alice, bob = await client.register("alice"), await client.register("bob")
    load = Load(client, alice, [await client.create_conversation(alice, bob) for _ in range(CONVERSATIONS)])
    watcher = Watcher(client, bob)
    watching = asyncio.create_task(watcher.run())
    async with asyncio.timeout(SECONDS_TO_SETTLE):
        while watcher.last_event_id is None:  # a stream without a cursor begins when it is open
            await asyncio.sleep(0.05)

    sending = asyncio.create_task(load.run(SECONDS_BEFORE_KILL + SECONDS_AFTER_KILL))
    await asyncio.sleep(SECONDS_BEFORE_KILL)
    victim = stack.process_id(program)
    os.kill(victim, signal.SIGKILL)
    await sending
    await asyncio.gather(*load.tasks)

    async with asyncio.timeout(SECONDS_TO_SETTLE):
        while not await asyncio.to_thread(stack.is_healthy, program):
            await asyncio.sleep(0.2)
    assert stack.process_id(program) != victim, "it is another process, which the supervisor started"

    for conversation_id, accepted in load.accepted.items():
        expected = list(range(2, max(accepted) + 1))
        assert sorted(accepted) == expected, "seqs are dense"
        events = await read_when_settled(client, bob, conversation_id, max(accepted))
        assert [event["seq"] for event in events] == [1, *expected], "the timeline holds each once, in order"
        told = {event["seq"]: event["body"]["text"] for event in events if event["type"] == "MessageSent"}
        assert told == accepted
    async with asyncio.timeout(SECONDS_TO_SETTLE):
        while not watcher.gaps and any(
            watcher.seen.get(conversation_id, [0])[-1] < max(accepted)
            for conversation_id, accepted in load.accepted.items()
        ):
            await asyncio.sleep(0.2)
    watching.cancel()
    for conversation_id, seqs in watcher.seen.items():
        assert seqs == sorted(set(seqs)), f"{conversation_id}: shown once, in order"
        if not watcher.gaps:
            assert seqs == list(range(2, max(load.accepted[conversation_id]) + 1))
    if program != "redis":  # whoever loses Redis may lose the positions behind a cursor, and is told so
        assert watcher.gaps == 0
