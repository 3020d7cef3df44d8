"""The path of a message, end to end: HTTP in, Server-Sent Events and history out."""

from __future__ import annotations

import asyncio
import json
import uuid
from datetime import datetime
from typing import Any

import psycopg
from aiokafka import AIOKafkaConsumer, TopicPartition

from infra.local.stack import Stack
from ingest_api.log_writer import APPEND, append_arguments, new_entry
from schemas.envelope import Envelope, read_envelope
from schemas.topics import CONVERSATION_EVENTS
from tests.benchmarks.load import ConnectionPool, request_head
from tests.chat_client import ChatClient, StreamEvent, User

TRACEPARENT = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"


async def take_until(events: Any, *, messages: int, within_seconds: float = 30) -> list[StreamEvent]:
    """The stream's events up to the given number of messages."""
    taken: list[StreamEvent] = []
    async with asyncio.timeout(within_seconds):
        async for event in events:
            if event.event == "MessageSent":
                taken.append(event)
                if len(taken) == messages:
                    return taken
            else:
                assert event.event in {"ready", "ConversationCreated"}, event
    raise AssertionError(f"the stream ended after {len(taken)} messages")


def api_login(stack: Stack) -> dict[str, Any]:
    environment = stack.environment_of("ingest-api")
    return {
        "host": "127.0.0.1",
        "port": stack.ports.postgres,
        "dbname": "chat4all",
        "user": "chat_api",
        "password": environment["CHAT4ALL_DATABASE_PASSWORD"],
    }


def texts(events: list[StreamEvent]) -> list[str]:
    return [json.loads(event.data)["body"]["text"] for event in events]


async def test_a_message_reaches_an_open_stream_and_the_history(client: ChatClient) -> None:
    alice, bob = await client.register("alice"), await client.register("bob")
    conversation_id = await client.create_conversation(alice, bob)
    async with client.stream(bob) as events:
        accepted = await client.send(alice, conversation_id, 'grüß dich, "Bob" \\ 👋')
        (event,) = await take_until(events, messages=1)

    sent = json.loads(event.data)
    assert sent["seq"] == accepted["seq"] == 2
    assert sent["message_id"] == accepted["message_id"]
    assert sent["created_at"] == accepted["created_at"]
    assert sent["actor_id"] == alice.user_id
    assert sent["body"] == {"type": "text", "text": 'grüß dich, "Bob" \\ 👋'}
    history = (await client.get(bob, f"/v1/conversations/{conversation_id}/messages")).json()
    assert [message["message_id"] for message in history["messages"]] == [accepted["message_id"]]
    inbox = (await client.get(bob, "/v1/conversations")).json()
    assert inbox["conversations"][0]["conversation_id"] == conversation_id
    assert inbox["conversations"][0]["last_message"]["message_id"] == accepted["message_id"]


async def test_a_message_tells_when_it_passed_each_hop(client: ChatClient) -> None:
    alice, bob = await client.register("alice"), await client.register("bob")
    conversation_id = await client.create_conversation(alice, bob)
    async with client.stream(bob) as events:
        accepted = await client.send(alice, conversation_id, "how far?")
        await take_until(events, messages=1)
    path = f"/v1/conversations/{conversation_id}/messages/{accepted['message_id']}/hops"
    hops = (await client.get(bob, path)).json()
    assert hops["accepted_at"] == accepted["created_at"]
    names = ("accepted_at", "committed_at", "appended_at", "applied_at", "answered_at")
    times = {name: datetime.fromisoformat(hops[name]).timestamp() for name in names}
    times["appended_at"] += 0.001  # its milliseconds are cut off
    assert list(times.values()) == sorted(times.values()), hops
    assert times["answered_at"] - times["accepted_at"] < 30


async def test_a_write_is_read_back_at_once_with_min_seq(client: ChatClient) -> None:
    alice = await client.register("alice")
    conversation_id = await client.create_conversation(alice)
    for number in range(5):
        accepted = await client.send(alice, conversation_id, f"message {number}")
        history = await client.get(alice, f"/v1/conversations/{conversation_id}/messages", min_seq=accepted["seq"])
        assert history.json()["messages"][-1]["message_id"] == accepted["message_id"]


async def test_a_rolled_back_message_reaches_nobody_and_leaves_no_hole(stack: Stack, client: ChatClient) -> None:
    alice = await client.register("alice")
    conversation_id = await client.create_conversation(alice)
    rolled_back = new_entry(
        event_id=str(uuid.uuid4()),
        type="MessageSent",
        conversation_id=conversation_id,
        actor_id=alice.user_id,
        traceparent=TRACEPARENT,
        body={"type": "text", "text": "never said"},
    )
    async with client.stream(alice) as events:
        async with await psycopg.AsyncConnection.connect(**api_login(stack)) as connection:
            row = await (await connection.execute(APPEND, append_arguments([rolled_back]))).fetchone()
            assert row is not None
            assert row[:2] == ("appended", 2)
            await connection.rollback()
        accepted = await client.send(alice, conversation_id, "said")
        assert accepted["seq"] == 2
        assert texts(await take_until(events, messages=1)) == ["said"]
    assert [event["seq"] for event in await client.read_events(alice, conversation_id)] == [1, 2]


async def test_twenty_retries_at_once_are_one_message(stack: Stack, client: ChatClient) -> None:
    alice, bob = await client.register("alice"), await client.register("bob")
    conversation_id = await client.create_conversation(alice, bob)
    message_id = str(uuid.uuid4())
    async with client.stream(bob) as events:
        answers = await asyncio.gather(
            *(client.post_message(alice, conversation_id, "once", message_id=message_id) for _ in range(20))
        )
        await client.send(alice, conversation_id, "the end")
        received = await take_until(events, messages=2)

    assert sorted(answer.status_code for answer in answers) == [200] * 19 + [201]
    assert {answer.headers.get("Idempotency-Replayed") for answer in answers if answer.status_code == 200} == {"true"}
    assert len({answer.text for answer in answers}) == 1
    assert texts(received) == ["once", "the end"]
    async with await psycopg.AsyncConnection.connect(**api_login(stack)) as connection:
        cursor = await connection.execute("SELECT seq FROM conversation_log WHERE event_id = %s", (message_id,))
        assert await cursor.fetchall() == [(2,)]
    other = await client.post_message(alice, conversation_id, "something else", message_id=message_id)
    assert other.status_code == 409
    elsewhere = await client.create_conversation(alice)
    moved = await client.post_message(alice, elsewhere, "once", message_id=message_id)
    assert moved.status_code == 409


async def test_fifty_conversations_of_twenty_senders_arrive_complete_and_in_order(
    stack: Stack, client: ChatClient
) -> None:
    conversations, messages_each, senders = 50, 200, 20
    alice = await client.register("alice")
    ids = [await client.create_conversation(alice) for _ in range(conversations)]
    work = asyncio.Queue[tuple[str, int]]()
    for number in range(messages_each):
        for conversation_id in ids:
            work.put_nowait((conversation_id, number))
    accepted: dict[str, set[int]] = {conversation_id: set() for conversation_id in ids}
    pool = ConnectionPool(stack.ports.ingest_api)
    await pool.open(senders)

    async def send_from_queue() -> None:
        while not work.empty():
            conversation_id, number = work.get_nowait()
            body = json.dumps({"body": {"type": "text", "text": f"message {number}"}}).encode()
            head = request_head(f"/v1/conversations/{conversation_id}/messages", alice.token)
            status, answer = await pool.post(head, body)
            assert status == 201, answer
            accepted[conversation_id].add(json.loads(answer)["seq"])

    async with client.stream(alice) as events:
        senders_done = asyncio.gather(*(send_from_queue() for _ in range(senders)))
        received = await take_until(events, messages=conversations * messages_each, within_seconds=180)
        await senders_done
    pool.close()

    seen: dict[str, list[int]] = {conversation_id: [] for conversation_id in ids}
    for event in received:
        message = json.loads(event.data)
        seen[message["conversation_id"]].append(message["seq"])
    expected = list(range(2, messages_each + 2))
    for conversation_id in ids:
        assert seen[conversation_id] == expected
        assert sorted(accepted[conversation_id]) == expected
        events_read = await client.read_events(alice, conversation_id)
        assert [event["seq"] for event in events_read] == [1, *expected]


async def test_a_client_that_resumes_sees_each_event_once(client: ChatClient) -> None:
    alice, bob = await client.register("alice"), await client.register("bob")
    ids = [await client.create_conversation(alice, bob) for _ in range(3)]
    total, received, last_event_id = 300, list[StreamEvent](), None

    async def send_all() -> None:
        for number in range(total):
            await client.send(alice, ids[number % 3], str(number))

    sending: asyncio.Task[None] | None = None
    async with asyncio.timeout(60):
        while len(received) < total:
            async with client.stream(bob, last_event_id=last_event_id) as events:
                taken_now = 0
                async for event in events:
                    last_event_id = event.id
                    sending = sending or asyncio.create_task(send_all())
                    assert event.event in {"ready", "ConversationCreated", "MessageSent"}, event
                    if event.event == "MessageSent":
                        received.append(event)
                        taken_now += 1
                    if taken_now == 17 or len(received) == total:
                        break
    assert sending is not None
    await sending
    assert sorted(map(int, texts(received))) == list(range(total))
    for conversation_id in ids:
        seqs = [m["seq"] for m in (json.loads(e.data) for e in received) if m["conversation_id"] == conversation_id]
        assert seqs == list(range(2, total // 3 + 2))


async def test_the_topic_carries_what_was_stored(stack: Stack, client: ChatClient) -> None:
    alice = await client.register("alice")
    conversation_id = await client.create_conversation(alice)
    for number in range(20):
        await client.send(alice, conversation_id, f"ünï {number}")
    consumer = AIOKafkaConsumer(bootstrap_servers=f"127.0.0.1:{stack.ports.kafka}", auto_offset_reset="earliest")
    await consumer.start()
    try:
        partitions = [TopicPartition(CONVERSATION_EVENTS.name, n) for n in range(CONVERSATION_EVENTS.partitions)]
        consumer.assign(partitions)
        envelopes: list[Envelope] = []
        async with asyncio.timeout(20):
            while len(envelopes) < 21:
                for records in (await consumer.getmany(timeout_ms=500)).values():
                    for record in records:
                        envelope = read_envelope(record.key, record.headers, record.value)
                        if envelope.conversation_id == conversation_id:
                            envelopes.append(envelope)
    finally:
        await consumer.stop()
    async with await psycopg.AsyncConnection.connect(**api_login(stack)) as connection:
        cursor = await connection.execute(
            "SELECT seq, event_id::text, type, payload, traceparent FROM conversation_log"
            " WHERE conversation_id = %s ORDER BY seq",
            (conversation_id,),
        )
        stored = await cursor.fetchall()
        assert (await (await connection.execute("SELECT count(*) FROM outbox")).fetchall()) == [(0,)]
    assert [(e.seq, e.event_id, e.event_type, e.payload.decode(), e.traceparent) for e in envelopes] == stored


async def test_strangers_learn_nothing(client: ChatClient) -> None:
    alice, mallory = await client.register("alice"), await client.register("mallory")
    conversation_id = await client.create_conversation(alice)
    nowhere = str(uuid.uuid4())
    for path in ("/v1/conversations/{}", "/v1/conversations/{}/messages", "/v1/conversations/{}/events"):
        existing = await client.get(mallory, path.format(conversation_id))
        missing = await client.get(mallory, path.format(nowhere))
        assert existing.status_code == missing.status_code == 404
        assert existing.json() == missing.json()
    existing = await client.post_message(mallory, conversation_id, "let me in")
    missing = await client.post_message(mallory, nowhere, "let me in")
    assert existing.status_code == missing.status_code == 404
    assert existing.json() == missing.json()


async def test_without_a_token_nothing_is_served(client: ChatClient) -> None:
    nobody = User("", "", "not.a.token")
    answers = [
        await client.post_message(nobody, str(uuid.uuid4()), "hi"),
        await client.get(nobody, "/v1/conversations"),
        await client.get(nobody, "/v1/stream"),
    ]
    assert [answer.status_code for answer in answers] == [401] * 3
    assert all(answer.headers["content-type"] == "application/problem+json" for answer in answers)
