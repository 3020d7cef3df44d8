"""Thousands of messages to a webhook that is away, and then fails 30 % of the time and answers slowly: each arrives, in
order per conversation; another target has all of them while the first one is still away. CHAT4ALL_WEBHOOK_MESSAGES says
how many (make faults: 10,000, and the target is away for a minute at least)."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import defaultdict
from itertools import pairwise
from typing import Any

import pytest

from infra.local.stack import Stack
from tests.chat_client import ChatClient, User
from tests.e2e.test_channels import set_webhook
from tests.receivers import Post, receive_webhooks

MESSAGES = int(os.environ.get("CHAT4ALL_WEBHOOK_MESSAGES", "1000"))
AWAY_SECONDS = 60.0 if MESSAGES >= 10_000 else 6.0
CONVERSATIONS = 50
BATCH = 100
FAILING_SHARE = 0.3
SECONDS_TO_ARRIVE = 240.0


async def send_batches(client: ChatClient, alice: User, conversation_ids: list[str]) -> set[str]:
    """The ids of the messages, all accepted."""
    accepted: set[str] = set()
    for start in range(0, MESSAGES, BATCH):
        items = [
            {
                "conversation_id": conversation_ids[number % CONVERSATIONS],
                "body": {"type": "text", "text": str(number)},
            }
            for number in range(start, start + BATCH)
        ]
        answer = await client.http.post(
            f"{client.ingest_url}/v1/messages/batch", json={"messages": items}, headers=alice.headers
        )
        answer.raise_for_status()
        for result in answer.json()["results"]:
            assert result["status"] == 201, result
            accepted.add(result["message_id"])
        await asyncio.sleep(BATCH / 400)
    return accepted


def numbers_by_conversation(messages: list[dict[str, Any]]) -> dict[str, list[int]]:
    """Conversation -> the numbers in its messages, in the order in which they came."""
    found: defaultdict[str, list[int]] = defaultdict(list)
    for message in messages:
        found[message["conversation_id"]].append(int(message["body"]["text"]))
    return found


@pytest.mark.long
async def test_a_bad_target_gets_everything_in_order_and_a_good_one_notices_nothing(
    stack: Stack, client: ChatClient
) -> None:
    alice, bob, carol = [await client.register(name) for name in ("alice", "bob", "carol")]
    dice = random.Random(7)
    is_away = asyncio.Event()

    async def respond(post: Post) -> int:
        if post.path != "/bad" or post.document["type"] != "messages":
            return 200
        if is_away.is_set():
            return 503
        await asyncio.sleep(dice.uniform(0.05, 0.5))
        return 500 if dice.random() < FAILING_SHARE else 200

    async with receive_webhooks(respond) as receiver:
        await set_webhook(client, bob, receiver, "/bad")
        await set_webhook(client, carol, receiver, "/good")
        conversation_ids = [await client.create_conversation(alice, bob, carol) for _ in range(CONVERSATIONS)]
        is_away.set()
        back_at = time.monotonic() + AWAY_SECONDS
        accepted = await send_batches(client, alice, conversation_ids)
        await receiver.wait_for_messages(MESSAGES, "/good", within_seconds=SECONDS_TO_ARRIVE)
        assert receiver.messages("/bad") == []
        await asyncio.sleep(max(0.0, back_at - time.monotonic()))
        is_away.clear()
        await receiver.wait_for_messages(MESSAGES, "/bad", within_seconds=SECONDS_TO_ARRIVE)
        bad, good = receiver.messages("/bad"), receiver.messages("/good")
        await both_are_told_as_delivered(client, alice, bad[-1])

    for name, messages in (("bad", bad), ("good", good)):
        assert {message["message_id"] for message in messages} == accepted, name
        for numbers in numbers_by_conversation(messages).values():
            firsts = list(dict.fromkeys(numbers))
            assert all(before < after for before, after in pairwise(firsts)), "an order was not kept"


async def both_are_told_as_delivered(client: ChatClient, alice: User, message: dict[str, Any]) -> None:
    """The sender is told that both have it."""
    path = f"/v1/conversations/{message['conversation_id']}/messages/{message['message_id']}/deliveries"
    async with asyncio.timeout(60):
        while True:
            found = (await client.get(alice, path)).json()["deliveries"]
            if [each["state"] for each in found] == ["delivered", "delivered"]:
                return
            await asyncio.sleep(0.2)
