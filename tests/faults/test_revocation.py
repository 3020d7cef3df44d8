"""Participants who are removed while their streams are open, and while the timeline app is killed: what they are told
ends with the event that says so."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import uuid
from contextlib import AsyncExitStack

from chat4all_client import Chat, Event
from chat4all_client.live import Live, Transport
from infra.local.stack import Stack

PARTICIPANTS = 8
MESSAGES_PER_SECOND = 50
SECONDS_BETWEEN_REMOVALS = 0.7
SECONDS_TO_SETTLE = 60
PASSWORD = "correct horse battery"


async def test_a_removed_participant_is_told_nothing_later_than_the_removal(stack: Stack) -> None:
    urls = (f"http://127.0.0.1:{stack.ports.ingest_api}", f"http://127.0.0.1:{stack.ports.delivery}")
    told: dict[tuple[int, Transport], list[Event]] = {}
    left_seqs: list[int] = []

    async def listen(number: int, transport: Transport, live: Live) -> None:
        async for event in live:
            assert isinstance(event, Event)
            if event.seq is not None:
                told.setdefault((number, transport), []).append(event)

    async with AsyncExitStack() as clients, asyncio.TaskGroup() as group:
        alice, *others = [await clients.enter_async_context(Chat(*urls)) for _ in range(PARTICIPANTS + 1)]
        for chat in (alice, *others):
            await chat.register(f"user-{uuid.uuid4().hex[:12]}", PASSWORD)
        conversation_id = await alice.create_conversation([chat.user_id for chat in others])
        await alice.page(conversation_id, min_seq=1)
        listening = []
        transports: tuple[Transport, ...] = ("websocket", "sse")
        for number, chat in enumerate(others):
            await chat.conversation(conversation_id)
            for transport in transports:
                live = await clients.enter_async_context(chat.live(transport=transport))
                listening.append(group.create_task(listen(number, transport, live)))

        is_over = asyncio.Event()

        async def talk() -> int:
            while not is_over.is_set():
                await alice.send(conversation_id, "a word")
                await asyncio.sleep(random.uniform(0, 2 / MESSAGES_PER_SECOND))
            return (await alice.send(conversation_id, "the last word")).seq

        talking = group.create_task(talk())
        for number, chat in enumerate(others):
            await asyncio.sleep(SECONDS_BETWEEN_REMOVALS)
            if number % 4 == 2:
                os.kill(stack.process_id("timeline"), signal.SIGKILL)
            left_seqs.append(await alice.remove_participant(conversation_id, chat.user_id))
        is_over.set()
        last_seq = await talking
        async with asyncio.timeout(SECONDS_TO_SETTLE):
            while (await alice.conversation(conversation_id))["seq"] < last_seq or any(
                told.get((number, transport), [None])[-1] is None or told[number, transport][-1].seq < left_seqs[number]  # type: ignore[operator]  # they have a seq
                for number in range(PARTICIPANTS)
                for transport in transports
            ):
                await asyncio.sleep(0.2)
        await asyncio.sleep(1)  # time for something that should not come
        for task in listening:
            task.cancel()

    for (number, transport), events in told.items():
        seqs = [event.seq for event in events]
        assert seqs == list(range(2, left_seqs[number] + 1)), f"participant {number} over {transport}"
        assert events[-1].type == "ParticipantLeft"
        assert events[-1].data["user_id"] == others[number].user_id
    assert len(told) == 2 * PARTICIPANTS
