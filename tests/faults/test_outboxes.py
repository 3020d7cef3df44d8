"""From one outbox to three and then to two while messages are sent: none is lost, and each conversation stays in order
all the way through Kafka, whichever connector its records took."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from infra.local.stack import Stack
from tests.chat_client import ChatClient, User
from tests.faults.test_lost_slot import told_by_kafka, wait_until_streamed
from tests.operators import connectors_command, declare_outboxes

CONVERSATIONS = 30
PAUSE_SECONDS = 0.25
"""Between two messages of one conversation."""


async def change_to(stack: Stack, folder: Path, outboxes: int) -> None:
    file = str(declare_outboxes(folder, outboxes))
    apply = ("outboxes", file, "--apply", "--timeout", "120")
    looked = await asyncio.to_thread(connectors_command, stack, "outboxes", "outboxes", file)
    assert looked.returncode == 2, looked.stdout + looked.stderr
    changed = await asyncio.to_thread(connectors_command, stack, "outboxes", *apply)
    assert changed.returncode == 0, changed.stdout + changed.stderr
    again = await asyncio.to_thread(connectors_command, stack, "outboxes", "outboxes", file)
    assert again.returncode == 0, again.stdout + again.stderr
    drift = await asyncio.to_thread(connectors_command, stack, "outboxes", "drift", file)
    assert drift.returncode == 0, drift.stdout + drift.stderr


class Talk:
    """Messages in every conversation until it is told to stop, each retried until it is accepted."""

    def __init__(self, client: ChatClient, alice: User, ids: list[str]) -> None:
        self.client = client
        self.alice = alice
        self.ids = ids
        self.ends: dict[str, int] = {}
        self.is_over = False

    async def run(self) -> None:
        await asyncio.gather(*(self._talk(conversation_id) for conversation_id in self.ids))

    async def _talk(self, conversation_id: str) -> None:
        while not self.is_over:
            sent = await self.client.send_until_accepted(self.alice, conversation_id, "hi", within_seconds=120)
            self.ends[conversation_id] = sent["seq"]
            await asyncio.sleep(PAUSE_SECONDS)


@pytest.mark.long
async def test_the_number_of_outboxes_changes_under_load_and_conversations_stay_in_order(
    stack: Stack, client: ChatClient, tmp_path: Path
) -> None:
    alice = await client.register("alice")
    talk = Talk(client, alice, [await client.create_conversation(alice) for _ in range(CONVERSATIONS)])
    talking = asyncio.create_task(talk.run())
    try:
        await asyncio.sleep(2)
        await change_to(stack, tmp_path, 3)
        await asyncio.sleep(3)
        examined = await asyncio.to_thread(connectors_command, stack, "doctor", "doctor", "--output", "json")
        errors = [each for each in json.loads(examined.stdout) if each["severity"] == "error"]
        assert errors == []
        await change_to(stack, tmp_path, 2)
        await asyncio.sleep(3)
        talk.is_over = True
        await talking
        await wait_until_streamed(client, alice, talk.ends)
        told = await told_by_kafka(stack, talk.ids)
        for conversation_id, seqs in told.items():
            first_times = list(dict.fromkeys(seqs))
            assert first_times == list(range(1, talk.ends[conversation_id] + 1)), "in order, without a hole"
            events = await client.read_events(alice, conversation_id)
            assert [event["seq"] for event in events] == first_times
    finally:
        talking.cancel()
        await asyncio.to_thread(connectors_command, stack, "outboxes", "outboxes", "--apply")
    examined = await asyncio.to_thread(connectors_command, stack, "doctor", "doctor", "--output", "json")
    assert [each for each in json.loads(examined.stdout) if each["severity"] != "note"] == []
