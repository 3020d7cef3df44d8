"""Channels, end to end: set over HTTP, verified by what comes over them, and then sent what others write."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import httpx
from aiokafka import AIOKafkaConsumer

from infra.local.stack import Stack
from schemas.delivery_events import DeliverySucceeded
from schemas.user_events import ChannelDisabled, parse_user_event
from tests.chat_client import ChatClient, User
from tests.conftest import MAIL_PORT_VARIABLE
from tests.receivers import Post, WebhookReceiver, receive_mail, receive_webhooks

CHANNELS = "/v1/me/channels"


async def ask(client: ChatClient, user: User, method: str, path: str, json: Any = None) -> httpx.Response:
    return await client.http.request(method, f"{client.ingest_url}{CHANNELS}{path}", json=json, headers=user.headers)


async def set_webhook(client: ChatClient, user: User, receiver: WebhookReceiver, path: str = "/hook") -> str:
    """Sets and verifies; the secret."""
    answer = await ask(client, user, "PUT", "/webhook", {"url": receiver.url(path)})
    assert answer.status_code == 200, answer.text
    post = await receiver.wait_for(lambda post: post.path == path and post.document["type"] == "verification")
    verified = await ask(client, user, "POST", "/webhook/verification", {"code": post.document["data"]["code"]})
    assert verified.status_code == 200, verified.text
    assert verified.json()["state"] == "active"
    return str(answer.json()["secret"])


async def state_when(client: ChatClient, user: User, **expected: Any) -> dict[str, Any]:
    """The user's webhook, once it is as expected."""
    async with asyncio.timeout(60):
        while True:
            channel: dict[str, Any] = (await ask(client, user, "GET", "/webhook")).json()
            if expected.items() <= channel.items():
                return channel
            await asyncio.sleep(0.1)


async def deliveries_when(client: ChatClient, user: User, conversation_id: str, message_id: str, state: str) -> Any:
    """The message's only delivery, once it is in this state."""
    async with asyncio.timeout(60):
        while True:
            answer = await client.get(user, f"/v1/conversations/{conversation_id}/messages/{message_id}/deliveries")
            assert answer.status_code == 200, answer.text
            found = answer.json()["deliveries"]
            if [each["state"] for each in found] == [state]:
                return found[0]
            await asyncio.sleep(0.1)


async def test_a_verified_webhook_gets_what_others_write_signed_and_in_order(client: ChatClient) -> None:
    alice, bob = await client.register("alice"), await client.register("bob")
    conversation_id = await client.create_conversation(alice, bob, title="plans")
    async with receive_webhooks() as receiver:
        await client.send(alice, conversation_id, "before")
        secret = await set_webhook(client, bob, receiver)
        sent = [await client.send(alice, conversation_id, f"number {n}") for n in range(5)]
        await client.send(bob, conversation_id, "my own")
        last = await client.send(alice, conversation_id, "the end")
        await receiver.wait_for_messages(6)
        messages = receiver.messages()
        delivery = await deliveries_when(client, alice, conversation_id, last["message_id"], "delivered")

    assert [message["message_id"] for message in messages] == [s["message_id"] for s in (*sent, last)]
    assert messages[0]["body"] == {"type": "text", "text": "number 0"}
    assert {message["actor_name"] for message in messages} == {alice.username}
    assert all(post.is_signed_by(secret) for post in receiver.taken)
    assert receiver.taken[-1].document["data"]["title"] == "plans"
    assert (delivery["user_id"], delivery["channel"], delivery["reason"]) == (bob.user_id, "webhook", None)
    assert delivery["at"]


async def test_only_the_sender_sees_deliveries(client: ChatClient) -> None:
    alice, bob, eve = [await client.register(name) for name in ("alice", "bob", "eve")]
    conversation_id = await client.create_conversation(alice, bob)
    sent = await client.send(alice, conversation_id, "x")
    path = f"/v1/conversations/{conversation_id}/messages/{sent['message_id']}/deliveries"
    answers = [(await client.get(user, path)).status_code for user in (alice, bob, eve)]
    assert answers == [200, 404, 404]
    assert (await client.get(alice, path)).json()["deliveries"] == []


async def test_a_rotated_secret_signs_beside_the_one_before(client: ChatClient) -> None:
    alice, bob = await client.register("alice"), await client.register("bob")
    conversation_id = await client.create_conversation(alice, bob)
    async with receive_webhooks() as receiver:
        before = await set_webhook(client, bob, receiver)
        rotated = (await ask(client, bob, "POST", "/webhook/secret")).json()
        await client.send(alice, conversation_id, "x")
        await receiver.wait_for_messages(1)
        post = receiver.taken[-1]
    assert post.is_signed_by(before)
    assert post.is_signed_by(rotated["secret"])
    assert rotated["secret"] != before


async def test_a_wrong_code_verifies_nothing_and_a_removed_channel_gets_nothing(client: ChatClient) -> None:
    alice, bob = await client.register("alice"), await client.register("bob")
    conversation_id = await client.create_conversation(alice, bob)
    async with receive_webhooks() as receiver:
        await ask(client, bob, "PUT", "/webhook", {"url": receiver.url()})
        code = await receiver.code()
        wrong = await ask(client, bob, "POST", "/webhook/verification", {"code": "AAAAAAAAAA"})
        assert (wrong.status_code, wrong.json()["type"]) == (409, "urn:chat4all:problem:wrong-code")
        await client.send(alice, conversation_id, "not verified yet")
        shown = f"{code[:5]}-{code[5:].lower()}"  # as a person types it
        assert (await ask(client, bob, "POST", "/webhook/verification", {"code": shown})).status_code == 200
        await client.send(alice, conversation_id, "verified")
        await receiver.wait_for_messages(1)
        assert (await ask(client, bob, "DELETE", "/webhook")).status_code == 200
        assert (await ask(client, bob, "DELETE", "/webhook")).status_code == 200
        await client.send(alice, conversation_id, "removed")
        other = await client.create_conversation(alice, eve := await client.register("eve"))
        await set_webhook(client, eve, receiver, "/eve")
        await client.send(alice, other, "a later one is there, so the earlier one would be")
        await receiver.wait_for_messages(1, "/eve")
        assert [message["body"]["text"] for message in receiver.messages()] == ["verified"]
    assert (await ask(client, bob, "GET", "/webhook")).status_code == 404


async def test_a_target_that_says_gone_is_disabled_and_an_event_tells_so(stack: Stack, client: ChatClient) -> None:
    alice, bob = await client.register("alice"), await client.register("bob")
    conversation_id = await client.create_conversation(alice, bob)

    async def respond(post: Post) -> int:
        return 410 if post.document["type"] == "messages" else 204

    async with receive_webhooks(respond) as receiver:
        await set_webhook(client, bob, receiver)
        sent = await client.send(alice, conversation_id, "x")
        channel = await state_when(client, bob, state="disabled")
        await deliveries_when(client, alice, conversation_id, sent["message_id"], "abandoned")
    assert channel["last_error"] == "It answers 410: it is gone."
    events = [parse_user_event(value) for value in await read_topic(stack, "user.events")]
    own = [event for event in events if str(event.user_id) == bob.user_id]
    assert [event.type for event in own] == ["ChannelSet", "ChannelVerified", "ChannelDisabled"]
    assert isinstance(own[-1], ChannelDisabled)
    assert [event.revision for event in own] == sorted(event.revision for event in own)


async def test_what_is_not_public_is_refused_before_a_connection_is_made(client: ChatClient) -> None:
    bob = await client.register("bob")
    async with receive_webhooks(host="::1") as receiver:
        for url in (receiver.url(), "http://169.254.169.254/latest/meta-data", "http://[::ffff:10.0.0.1]/"):
            assert (await ask(client, bob, "PUT", "/webhook", {"url": url})).status_code == 200
            await state_when(client, bob, address=url, last_error="The host's address is not public.")
        assert receiver.came == []


async def test_a_verified_mailbox_gets_what_others_write(stack: Stack, client: ChatClient) -> None:
    alice, bob = await client.register("alice"), await client.register("bob")
    conversation_id = await client.create_conversation(alice, bob, title="plans")
    address = f"{bob.username}@example.org"
    async with receive_mail(int(stack.config.environ[MAIL_PORT_VARIABLE])) as server:
        answer = await ask(client, bob, "PUT", "/email", {"address": address})
        assert answer.json()["secret"] is None
        mail = await server.wait_for(address, "The code is")
        code = re.search(r"The code is (\S+)", mail.get_content())
        assert code is not None
        assert (await ask(client, bob, "POST", "/email/verification", {"code": code[1]})).status_code == 200
        sent = await client.send(alice, conversation_id, "grüß dich 👋")
        mail = await server.wait_for(address, "grüß dich 👋")
        assert mail["Subject"] == f"plans: {alice.username} wrote"
        assert mail["Auto-Submitted"] == "auto-generated"
        await deliveries_when(client, alice, conversation_id, sent["message_id"], "delivered")
    values = await read_topic(stack, "delivery.events")
    outcomes = [DeliverySucceeded.model_validate_json(value) for value in values if conversation_id.encode() in value]
    assert [(o.channel, str(o.user_id), o.first_seq, o.last_seq) for o in outcomes] == [("email", bob.user_id, 2, 2)]


async def test_secrets_and_addresses_are_in_no_topic_and_no_log(stack: Stack, client: ChatClient) -> None:
    alice, bob = await client.register("alice"), await client.register("bob")
    conversation_id = await client.create_conversation(alice, bob)
    async with receive_webhooks() as receiver:
        secret = await set_webhook(client, bob, receiver, "/only-bob-knows-this-path")
        code = (await receiver.code()).encode()
        rotated = (await ask(client, bob, "POST", "/webhook/secret")).json()["secret"]
        await client.send(alice, conversation_id, "x")
        await receiver.wait_for_messages(1, "/only-bob-knows-this-path")
    hidden = [secret.encode(), rotated.encode(), b"only-bob-knows-this-path", code]
    for topic in ("user.events", "channel.webhook", "delivery.events"):
        values = await read_topic(stack, topic)
        assert values, topic
        assert not [value for value in values if any(each in value for each in hidden)]
    for log in stack.config.logs_dir.iterdir():
        found = [each for each in hidden if each in log.read_bytes()]
        assert not found, log.name


async def read_topic(stack: Stack, topic: str) -> list[bytes]:
    """All values that the topic has now."""
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=f"127.0.0.1:{stack.ports.kafka}", auto_offset_reset="earliest", group_id=None
    )
    await consumer.start()
    try:
        ends = await consumer.end_offsets(consumer.assignment())
        values: list[bytes] = []
        async with asyncio.timeout(60):
            while any([await consumer.position(partition) < end for partition, end in ends.items()]):
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    values += [record.value for record in records]
        return values
    finally:
        await consumer.stop()
