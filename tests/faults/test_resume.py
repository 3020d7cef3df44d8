"""Clients that lose their connection every few seconds, over both ways, while delivery and Redis are killed: each ends
with exactly the right timeline. CHAT4ALL_RESUME_CLIENTS and CHAT4ALL_RESUME_SECONDS set the size (make faults)."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
import uuid
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field

from chat4all_client import Chat, ChatError, Event
from chat4all_client.live import Transport
from infra.local.stack import Stack

CLIENTS = int(os.environ.get("CHAT4ALL_RESUME_CLIENTS", "30"))
SECONDS = float(os.environ.get("CHAT4ALL_RESUME_SECONDS", "6"))
CLIENTS_PER_USER = 5
CONVERSATIONS_PER_USER = 8
MESSAGES_PER_SECOND = 40
SECONDS_TO_SETTLE = 90
PASSWORD = "correct horse battery"


@dataclass
class Flaky:
    """A client that keeps nothing between its connections but the cursor, and what it has shown. After a gap it
    fetches, and passes over what it has shown already, as docs/live.md asks."""

    chat: Chat
    transport: Transport
    conversation_ids: list[str]
    shown: dict[str, list[int]] = field(default_factory=dict)
    unfetched: set[str] = field(default_factory=set)
    twice: int = 0
    gaps: int = 0
    connections: int = 0
    cursor: str | None = None
    is_flaky: bool = True

    async def run(self, ready: asyncio.Semaphore) -> None:
        while True:
            with suppress(TimeoutError, ChatError):
                async with asyncio.timeout(random.uniform(2.0, 6.0) if self.is_flaky else None):
                    await self._listen(ready)

    async def _listen(self, ready: asyncio.Semaphore) -> None:
        live = self.chat.live(cursor=self.cursor, transport=self.transport, fills_gaps=False)
        async with live:
            if not self.connections:
                ready.release()
            self.connections += 1
            self.cursor = live.cursor
            async for event in live:
                if isinstance(event, Event):
                    if event.conversation_id in self.unfetched:
                        await self._fetch(event.conversation_id)
                    self._show(event)
                else:
                    self.gaps += 1
                    self.unfetched.update(self.conversation_ids)
                self.cursor = live.cursor
                if not isinstance(event, Event):
                    for conversation_id in self.conversation_ids:
                        await self._fetch(conversation_id)

    async def _fetch(self, conversation_id: str) -> None:
        after_seq = self.shown.get(conversation_id, [1])[-1]
        async for event in self.chat.events(conversation_id, after_seq=after_seq):
            self._show(event)
        self.unfetched.discard(conversation_id)

    def _show(self, event: Event) -> None:
        if event.seq is None:
            return
        shown = self.shown.setdefault(event.conversation_id, [])
        if shown and event.seq <= shown[-1]:
            self.twice += 1
        else:
            shown.append(event.seq)

    def has_all(self, last_seqs: dict[str, int]) -> bool:
        return all(self.shown.get(each, [1])[-1] >= last_seqs[each] for each in self.conversation_ids)

    async def finish(self) -> None:
        """Fetches what a connection that was lost left to be fetched."""
        for conversation_id in list(self.unfetched):
            await self._fetch(conversation_id)


async def test_every_client_ends_with_exactly_the_right_timeline(stack: Stack) -> None:
    urls = (f"http://127.0.0.1:{stack.ports.ingest_api}", f"http://127.0.0.1:{stack.ports.delivery}")
    async with AsyncExitStack() as clients, asyncio.TaskGroup() as group:
        sender = await clients.enter_async_context(Chat(*urls, within_seconds=60))
        await sender.register(f"sender-{uuid.uuid4().hex[:12]}", PASSWORD)
        flaky: list[Flaky] = []
        for _ in range(CLIENTS // CLIENTS_PER_USER):
            chat = await clients.enter_async_context(Chat(*urls, within_seconds=60))
            await chat.register(f"flaky-{uuid.uuid4().hex[:12]}", PASSWORD)
            ids = [await sender.create_conversation([chat.user_id]) for _ in range(CONVERSATIONS_PER_USER)]
            for conversation_id in ids:
                await chat.page(conversation_id, min_seq=1)
            for number in range(CLIENTS_PER_USER):
                flaky.append(Flaky(chat, ("websocket", "sse")[number % 2], ids))
        ready = asyncio.Semaphore(0)
        running = [group.create_task(each.run(ready)) for each in flaky]
        async with asyncio.timeout(SECONDS_TO_SETTLE):
            for _ in flaky:
                await ready.acquire()

        last_seqs = {each: 1 for client in flaky for each in client.conversation_ids}
        disturbing = group.create_task(disturb(stack))
        ids = list(last_seqs)
        number, until = 0, time.monotonic() + SECONDS
        while not disturbing.done() or time.monotonic() < until:
            accepted = await sender.send(random.choice(ids), f"message {number}")
            last_seqs[accepted.conversation_id] = max(last_seqs[accepted.conversation_id], accepted.seq)
            number += 1
            await asyncio.sleep(1 / MESSAGES_PER_SECOND)
        for client in flaky:
            client.is_flaky = False
        await asyncio.sleep(7)  # by then every connection is one that stays
        for client in flaky:
            await client.finish()
        async with asyncio.timeout(SECONDS_TO_SETTLE):
            while not all(client.has_all(last_seqs) for client in flaky):
                await asyncio.sleep(0.2)
        for task in running:
            task.cancel()

    for client in flaky:
        for conversation_id in client.conversation_ids:
            assert client.shown.get(conversation_id, []) == list(range(2, last_seqs[conversation_id] + 1))
        assert client.twice == 0 or client.gaps, "nothing is told twice, unless it was fetched"
    print(  # noqa: T201 - the figures of a run
        f"{len(flaky)} clients, {sum(client.connections for client in flaky)} connections, {number} messages, "
        f"{sum(len(seqs) for client in flaky for seqs in client.shown.values())} shown, "
        f"{sum(client.gaps for client in flaky)} gaps"
    )


async def disturb(stack: Stack) -> None:
    """Delivery is killed and restarted in good order, and Redis is killed."""
    for program, how in (("delivery", signal.SIGKILL), ("redis", signal.SIGKILL), ("delivery", signal.SIGTERM)):
        await asyncio.sleep(SECONDS / 4)
        os.kill(stack.process_id(program), how)
        async with asyncio.timeout(SECONDS_TO_SETTLE):
            while not await asyncio.to_thread(stack.is_healthy, program):
                await asyncio.sleep(0.2)
