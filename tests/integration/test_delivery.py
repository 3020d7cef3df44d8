"""Delivery on real servers: what is read, what is streamed, and what happens when Redis or Postgres is not there."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from stream_apps.delivery.live.cursors import MAX_WITHOUT_BASE
from tests.chat_client import ChatClient, StreamEvent, User
from tests.integration.servers import Server, free_port, start_postgres, start_redis
from tests.integration.world import World, create_world
from tests.upstream import Upstream, start_upstream


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Server, Server]]:
    with ExitStack() as stack:
        yield stack.enter_context(start_redis()), stack.enter_context(start_postgres())


@pytest.fixture
async def world(servers: tuple[Server, Server], tmp_path: Path) -> AsyncIterator[World]:
    for server in servers:
        if server.process is None:
            server.start()
    async with create_world(*servers, tmp_path) as own:
        yield own


async def take(events: AsyncIterator[StreamEvent], count: int, *, within_seconds: float = 10) -> list[StreamEvent]:
    taken: list[StreamEvent] = []
    async with asyncio.timeout(within_seconds):
        while len(taken) < count:
            taken.append(await anext(events))
    return taken


def seqs(events: list[StreamEvent]) -> list[int]:
    return [json.loads(event.data)["seq"] for event in events]


def texts(events: list[StreamEvent]) -> list[str]:
    return [json.loads(event.data)["body"]["text"] for event in events]


async def get_page(client: ChatClient, user: User, conversation_id: str, **query: Any) -> dict[str, Any]:
    answer = await client.get(user, f"/v1/conversations/{conversation_id}/messages", **query)
    assert answer.status_code == 200, answer.text
    page: dict[str, Any] = answer.json()
    return page


# Reads.


@pytest.mark.parametrize("source", ["redis", "postgres"])
async def test_messages_are_read_page_by_page_in_both_directions(world: World, source: str) -> None:
    alice = await world.register()
    conversation_id = await world.create_conversation(alice)
    message_ids = await world.send(conversation_id, *map(str, range(25)))
    if source == "postgres":
        await world.redis.flushall()
    async with world.delivery() as client:
        newest = await get_page(client, alice, conversation_id, limit=10)
        assert [m["message_id"] for m in newest["messages"]] == message_ids[15:]
        assert (newest["prev"], newest["next"]) == (17, None)

        backwards, page = [newest["messages"]], newest
        while page["prev"] is not None:
            page = await get_page(client, alice, conversation_id, limit=10, before_seq=page["prev"])
            backwards.insert(0, page["messages"])
        assert [m["message_id"] for part in backwards for m in part] == message_ids

        page = await get_page(client, alice, conversation_id, limit=10, after_seq=0)
        forwards = page["messages"]
        while page["next"] is not None:
            page = await get_page(client, alice, conversation_id, limit=10, after_seq=page["next"])
            forwards += page["messages"]
        assert [m["message_id"] for m in forwards] == message_ids
        assert forwards[3] == {
            "message_id": message_ids[3],
            "conversation_id": conversation_id,
            "seq": 5,
            "actor_id": alice.user_id,
            "created_at": forwards[3]["created_at"],
            "body": {"type": "text", "text": "3"},
            "reply_to": None,
            "edited": False,
            "edited_at": None,
            "deleted": False,
        }


async def test_a_timeline_that_was_cut_short_is_completed_from_postgres(world: World) -> None:
    alice = await world.register()
    conversation_id = await world.create_conversation(alice)
    message_ids = await world.send(conversation_id, *map(str, range(30)))
    await world.redis.xtrim(f"conv:{{{conversation_id}}}:timeline", maxlen=5, approximate=False)
    async with world.delivery() as client:
        newest = await get_page(client, alice, conversation_id, limit=4)
        assert [m["message_id"] for m in newest["messages"]] == message_ids[26:]
        whole = await get_page(client, alice, conversation_id, limit=200)
        assert [m["message_id"] for m in whole["messages"]] == message_ids
        from_start = await get_page(client, alice, conversation_id, after_seq=0, limit=200)
        assert [m["message_id"] for m in from_start["messages"]] == message_ids


async def test_a_message_tells_when_it_came_how_far(world: World) -> None:
    alice, bob = await world.register(), await world.register()
    conversation_id = await world.create_conversation(alice, bob)
    (sent,) = await world.send(conversation_id, "hello", project=False)
    path = f"/v1/conversations/{conversation_id}/messages/{sent}/hops"
    async with world.delivery() as client:
        before = (await client.get(bob, path)).json()
        assert (before["message_id"], before["seq"]) == (sent, 2)
        assert before["traceparent"].startswith("00-")
        assert before["accepted_at"] < before["committed_at"] < before["answered_at"]
        assert (before["appended_at"], before["applied_at"]) == (None, None)

        await world.project(conversation_id)
        after = (await client.get(alice, path)).json()
        assert after["committed_at"] < after["applied_at"] < after["answered_at"]
        assert after["appended_at"] is None, "it did not come by Kafka"

        await world.redis.flushall()
        await world.rebuild(conversation_id)
        assert (await client.get(bob, path)).json()["applied_at"] is None, "nobody remembers"


async def test_hops_are_told_to_whoever_may_read_the_message(world: World) -> None:
    alice, bob, carol = [await world.register() for _ in range(3)]
    conversation_id = await world.create_conversation(alice, bob)
    (seen,) = await world.send(conversation_id, "to both")
    await world.leave(conversation_id, bob)
    (unseen,) = await world.send(conversation_id, "to alice alone")
    async with world.delivery() as client:
        for user, message_id, status in (
            (bob, seen, 200),
            (bob, unseen, 404),
            (bob, str(uuid.uuid4()), 404),
            (carol, seen, 404),
            (alice, unseen, 200),
        ):
            answer = await client.get(user, f"/v1/conversations/{conversation_id}/messages/{message_id}/hops")
            assert answer.status_code == status, answer.text


async def test_min_seq_reads_what_the_tables_do_not_have_yet(world: World) -> None:
    alice = await world.register()
    conversation_id = await world.create_conversation(alice)
    await world.send(conversation_id, "seen")
    await world.send(conversation_id, "new", project=False)
    async with world.delivery() as client:
        behind = await get_page(client, alice, conversation_id)
        assert [m["body"]["text"] for m in behind["messages"]] == ["seen"]
        for query in ({}, {"after_seq": 0}, {"after_seq": 2}):
            page = await get_page(client, alice, conversation_id, min_seq=3, **query)
            assert page["messages"][-1]["body"]["text"] == "new"


async def test_events_are_the_stored_payloads_byte_for_byte(world: World) -> None:
    alice = await world.register()
    conversation_id = await world.create_conversation(alice)
    await world.send(conversation_id, 'ünï \\ "quoted"', "two")
    stored = [entry.payload for entry in await world.log.read_entries(conversation_id, after_seq=0, limit=10)]
    async with world.delivery() as client:
        first = await client.get(alice, f"/v1/conversations/{conversation_id}/events", limit=2)
        assert first.content == b'{"events":[' + b",".join(stored[:2]) + b'],"next":2}'
        rest = await client.get(alice, f"/v1/conversations/{conversation_id}/events", after_seq=2)
        assert rest.content == b'{"events":[' + stored[2] + b'],"next":null}'


@pytest.mark.parametrize("source", ["redis", "postgres", "both"])
async def test_the_inbox_is_sorted_by_last_activity_and_paged(world: World, source: str) -> None:
    alice, bob = await world.register(), await world.register()
    ids = [await world.create_conversation(alice, bob, title=f"number {number}") for number in range(5)]
    for number in (2, 0, 1):
        await world.send(ids[number], f"hello {number}")
    await world.create_conversation(bob)
    if source == "postgres":
        await world.redis.flushall()
    elif source == "both":
        await world.redis.delete(*(f"conv:{{{each}}}:head" for each in ids[:2]))
    async with world.delivery() as client:
        whole = (await client.get(alice, "/v1/conversations")).json()
        assert [c["conversation_id"] for c in whole["conversations"]] == [ids[n] for n in (1, 0, 2, 4, 3)]
        assert whole["next"] is None
        first = whole["conversations"][0]
        assert (first["title"], first["seq"], first["last_message"]["body"]["text"]) == ("number 1", 2, "hello 1")
        assert set(first["last_message"]) == {
            "message_id",
            "actor_id",
            "seq",
            "created_at",
            "body",
            "edited",
            "deleted",
        }
        assert whole["conversations"][-1]["last_message"] is None

        paged, cursor = [], None
        while True:
            query = {"limit": 2} if cursor is None else {"limit": 2, "cursor": cursor}
            page = (await client.get(alice, "/v1/conversations", **query)).json()
            paged += page["conversations"]
            cursor = page["next"]
            if cursor is None:
                break
        assert paged == whole["conversations"]


@pytest.mark.parametrize("source", ["redis", "postgres"])
async def test_a_conversation_tells_its_title_and_participants(world: World, source: str) -> None:
    alice, bob = await world.register(), await world.register()
    conversation_id = await world.create_conversation(alice, bob, title=None)
    if source == "postgres":
        await world.redis.flushall()
    async with world.delivery() as client:
        answer = (await client.get(bob, f"/v1/conversations/{conversation_id}")).json()
    assert answer == {
        "conversation_id": conversation_id,
        "title": None,
        "participants": [
            {
                "user_id": user_id,
                "role": "admin" if user_id == alice.user_id else "member",
                "joined_seq": 1,
                "left_seq": None,
            }
            for user_id in sorted([alice.user_id, bob.user_id])
        ],
        "receipts": [],
        "seq": 1,
    }


async def test_a_stranger_is_told_what_one_is_told_of_nothing(world: World) -> None:
    alice, mallory = await world.register(), await world.register()
    conversation_id = await world.create_conversation(alice)
    async with world.delivery() as client:
        for path in ("/v1/conversations/{}", "/v1/conversations/{}/messages", "/v1/conversations/{}/events"):
            there = await client.get(mallory, path.format(conversation_id))
            nowhere = await client.get(mallory, path.format(uuid.uuid4()))
            assert (there.status_code, there.json()) == (404, nowhere.json())
        there = await client.get(mallory, "/v1/stream", conversation_id=conversation_id)
        nowhere = await client.get(mallory, "/v1/stream", conversation_id=str(uuid.uuid4()))
        assert (there.status_code, there.json()) == (404, nowhere.json())


async def test_errors_are_problem_documents(world: World) -> None:
    alice = await world.register()
    conversation_id = await world.create_conversation(alice)
    expired = User(alice.user_id, "", world.make_token(alice.user_id, lifetime_seconds=-1))
    scopeless = User(alice.user_id, "", world.make_token(alice.user_id, scope="other"))
    async with world.delivery() as client:
        for user, status, challenge in [
            (expired, 401, 'Bearer error="invalid_token"'),
            (User("", "", "nonsense"), 401, 'Bearer error="invalid_token"'),
            (scopeless, 403, 'Bearer error="insufficient_scope", scope="chat"'),
        ]:
            for path in ("/v1/conversations", "/v1/stream"):
                answer = await client.get(user, path)
                assert (answer.status_code, answer.headers["www-authenticate"]) == (status, challenge)
                assert answer.headers["content-type"] == "application/problem+json"
        bare = await client.http.get(f"{client.delivery_url}/v1/conversations")
        assert (bare.status_code, bare.headers["www-authenticate"]) == (401, "Bearer")
        malformed: list[tuple[str, dict[str, Any], str]] = [
            ("/v1/conversations/nonsense", {}, "path.conversation_id"),
            ("/v1/conversations", {"limit": 0}, "query.limit"),
            ("/v1/conversations", {"cursor": "nonsense"}, "query.cursor"),
            ("/v1/stream", {"conversation_id": "nonsense"}, "query.conversation_id"),
            (f"/v1/conversations/{conversation_id}/messages", {"limit": 201}, "query.limit"),
            (f"/v1/conversations/{conversation_id}/messages", {"after_seq": 2**63}, "query.after_seq"),
        ]
        for path, query, field in malformed:
            answer = await client.get(alice, path, **query)
            assert answer.status_code == 422
            assert answer.json()["errors"][0]["path"] == field
        missing = await client.get(alice, "/nowhere")
        assert (missing.status_code, missing.json()["type"]) == (404, "urn:chat4all:problem:not-found")
        wrong = await client.http.post(f"{client.delivery_url}/v1/conversations", headers=alice.headers)
        assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET")


async def test_what_the_client_has_is_not_told_again_until_it_changes(world: World) -> None:
    alice = await world.register()
    conversation_id = await world.create_conversation(alice)
    await world.send(conversation_id, *("x" * 100 for _ in range(20)))
    async with world.delivery() as client:
        of = f"/v1/conversations/{conversation_id}"
        for path in ("/v1/conversations", of, f"{of}/messages", f"{of}/events"):
            first = await client.get(alice, path, limit=50)
            headers = {**alice.headers, "If-None-Match": first.headers["etag"]}
            url = f"{client.delivery_url}{path}?limit=50"
            again = await client.http.get(url, headers=headers)
            assert (again.status_code, again.content) == (304, b"")
            await world.send(conversation_id, "news")
            assert (await client.http.get(url, headers=headers)).status_code == 200
        assert first.headers["content-encoding"] == "gzip"


# Live.


async def test_a_stream_delivers_every_conversation_live(world: World) -> None:
    alice, bob = await world.register(), await world.register()
    ids = [await world.create_conversation(alice, bob) for _ in range(3)]
    await world.send(ids[0], "before")
    async with world.delivery() as client, client.stream(bob) as events:
        (ready,) = await take(events, 1)
        assert (ready.event, json.loads(ready.data)) == ("ready", {"resumed": False})
        for number in range(9):
            await world.send(ids[number % 3], str(number))
        received = await take(events, 9)
        assert texts(received) == [str(number) for number in range(9)]
        assert len({event.id for event in received}) == 9
        stored = await world.log.read_entries(ids[0], after_seq=2, limit=1)
        assert received[0].data.encode() == stored[0].payload


async def test_a_narrowed_stream_delivers_one_conversation(world: World) -> None:
    alice = await world.register()
    wanted, other = await world.create_conversation(alice), await world.create_conversation(alice)
    async with world.delivery() as client:
        async with client.stream(alice, conversation_id=wanted) as events:
            (ready,) = await take(events, 1)
            await world.send(other, "not this")
            await world.send(wanted, "this")
            assert texts(await take(events, 1)) == ["this"]
        await world.send(wanted, "and that")
        async with client.stream(alice, conversation_id=wanted, last_event_id=ready.id) as events:
            assert texts((await take(events, 3))[1:]) == ["this", "and that"]
        async with client.stream(alice, conversation_id=other, last_event_id=ready.id) as events:
            assert [event.event for event in await take(events, 2)] == ["gap", "ready"]
        async with client.stream(alice, last_event_id=ready.id) as events:
            assert [event.event for event in await take(events, 2)] == ["gap", "ready"]


async def test_a_conversation_that_begins_later_joins_the_stream(world: World) -> None:
    alice, bob = await world.register(), await world.register()
    async with world.delivery() as client:
        async with client.stream(bob) as events:
            (ready,) = await take(events, 1)
            conversation_id = await world.create_conversation(alice, bob)
            await world.send(conversation_id, "welcome")
            created, sent = await take(events, 2)
            assert (created.event, sent.event) == ("ConversationCreated", "MessageSent")
        async with client.stream(bob, last_event_id=created.id) as events:
            again = await take(events, 2)
            assert [event.event for event in again] == ["ready", "MessageSent"]
        async with client.stream(bob, last_event_id=ready.id) as events:
            assert [e.event for e in await take(events, 3)] == ["ready", "ConversationCreated", "MessageSent"]


@pytest.mark.parametrize("conversations", [2, MAX_WITHOUT_BASE + 26])
@pytest.mark.parametrize("taken_each_time", [1, 7, 40])
async def test_a_client_that_reconnects_sees_every_event_once(
    world: World, conversations: int, taken_each_time: int
) -> None:
    alice, bob = await world.register(), await world.register()
    ids = [await world.create_conversation(alice, bob) for _ in range(conversations)]
    total = 160
    received: list[StreamEvent] = []

    async def write() -> None:
        for number in range(total):
            await world.send(ids[number % conversations], str(number))
            if number == 80:
                ids.append(await world.create_conversation(bob, alice))

    async with world.delivery() as client:
        async with client.stream(bob) as events:
            last_event_id = (await take(events, 1))[0].id
        writing = asyncio.create_task(write())
        while len(received) < total + 1:
            async with client.stream(bob, last_event_id=last_event_id) as events:
                count = min(taken_each_time, total + 1 - len(received))
                ready, *new = await take(events, count + 1)
                assert ready.event == "ready"
                received += new
                last_event_id = new[-1].id
        await writing
        async with client.stream(bob, last_event_id=last_event_id) as events:
            assert [event.event for event in await take(events, 1)] == ["ready"]
            await world.send(ids[0], "the end")
            assert texts(await take(events, 1)) == ["the end"]
    for conversation_id in ids:
        own = [e for e in received if json.loads(e.data)["conversation_id"] == conversation_id]
        first = 1 if own and own[0].event == "ConversationCreated" else 2
        assert seqs(own) == list(range(first, first + len(own)))
    assert sorted(int(t) for t in texts([e for e in received if e.event == "MessageSent"])) == list(range(total))


async def test_a_cursor_stays_small_and_survives_in_one_long_stream(world: World) -> None:
    alice = await world.register()
    ids = [await world.create_conversation(alice) for _ in range(60)]
    async with world.delivery() as client:
        async with client.stream(alice) as events:
            await take(events, 1)
            received: list[StreamEvent] = []
            for turn in range(3):
                for conversation_id in ids:
                    await world.send(conversation_id, f"{turn}")
                    received += await take(events, 1)
            assert max(len(event.id) for event in received) < 200
        for position in (0, 17, 100, 178):
            async with client.stream(alice, last_event_id=received[position].id) as events:
                ready, *rest = await take(events, 180 - position)
                assert ready.event == "ready"
                key = lambda e: (json.loads(e.data)["conversation_id"], json.loads(e.data)["seq"])  # noqa: E731
                assert sorted(map(key, rest)) == sorted(map(key, received[position + 1 :]))


@pytest.mark.parametrize("fault", ["flushed", "foreign", "malformed"])
async def test_a_cursor_that_says_nothing_is_answered_by_a_gap(world: World, fault: str) -> None:
    alice, bob = await world.register(), await world.register()
    ids = [await world.create_conversation(alice, bob) for _ in range(MAX_WITHOUT_BASE + 1)]
    async with world.delivery() as client:
        async with client.stream(alice if fault == "foreign" else bob) as events:
            cursor = (await take(events, 1))[0].id
        if fault == "flushed":
            await world.redis.flushall()
        elif fault == "malformed":
            cursor = "nonsense"
        async with client.stream(bob, last_event_id=cursor) as events:
            gap, ready = await take(events, 2)
            assert (gap.event, ready.event) == ("gap", "ready")
            assert json.loads(gap.data) == {"conversation_id": None, "after_seq": None, "reason": "unknown_cursor"}
            if fault != "flushed":
                await world.send(ids[0], "live again")
                assert texts(await take(events, 1)) == ["live again"]


async def test_live_events_that_were_lost_are_filled_in_from_the_timeline(world: World) -> None:
    alice = await world.register()
    conversation_id = await world.create_conversation(alice)
    async with world.delivery() as client, client.stream(alice) as events:
        await take(events, 1)
        await world.send(conversation_id, "one")
        assert texts(await take(events, 1)) == ["one"]
        # What Redis publishes now reaches nobody: the subscriber is cut off each time.
        await world.redis.client_kill_filter(_type="pubsub")
        await world.send(conversation_id, "two", "three")
        assert texts(await take(events, 2)) == ["two", "three"]
        await world.send(conversation_id, "four")
        assert texts(await take(events, 1)) == ["four"]


async def test_a_flushed_redis_is_bridged_from_postgres(world: World) -> None:
    alice = await world.register()
    conversation_id = await world.create_conversation(alice)
    async with world.delivery() as client, client.stream(alice) as events:
        await take(events, 1)
        await world.redis.flushall()
        await world.send(conversation_id, "one", "two", "three", project=False)
        await world.rebuild(conversation_id)
        assert texts(await take(events, 3)) == ["one", "two", "three"]
        await world.redis.flushall()
        await world.send(conversation_id, "four", "five", project=False)
        # Only the last one comes live; nothing but Postgres knows of the other.
        entry = (await world.log.read_entries(conversation_id, after_seq=5, limit=1))[0]
        frame = f"6 MessageSent {entry.event_id}\n".encode() + entry.payload
        await world.redis.publish(f"conv:{{{conversation_id}}}:live", frame)
        assert texts(await take(events, 2)) == ["four", "five"]


async def test_a_restarted_redis_costs_a_stream_nothing(world: World) -> None:
    alice = await world.register()
    ids = [await world.create_conversation(alice) for _ in range(MAX_WITHOUT_BASE + 2)]
    async with world.delivery() as client, client.stream(alice) as events:
        await take(events, 1)
        world.redis_server.stop()
        await world.send(ids[0], "while it was away", project=False)
        during = await get_page(client, alice, ids[0])
        assert during["messages"][-1]["body"]["text"] == "while it was away"
        async with client.stream(alice) as late:
            assert [event.event for event in await take(late, 1)] == ["ready"]
            world.redis_server.start()
            (missed,) = await take(events, 1)
            assert texts([missed]) == ["while it was away"]
            await world.rebuild(ids[0])
            await world.send(ids[0], "live again")
            for stream in (events, late):
                (live,) = await take(stream, 1)
                assert texts([live]) == ["live again"]
            # The positions behind the cursors are stored anew.
            async with asyncio.timeout(5):
                while len(await world.redis.keys("cursor:*")) < 2:
                    await asyncio.sleep(0.01)
        async with client.stream(alice, last_event_id=live.id) as resumed:
            assert json.loads((await take(resumed, 1))[0].data) == {"resumed": True}


async def test_without_postgres_reads_and_streams_go_on_from_redis(world: World) -> None:
    alice = await world.register()
    conversation_id = await world.create_conversation(alice)
    await world.send(conversation_id, "before")
    entry = (await world.log.read_entries(conversation_id, after_seq=1, limit=1))[0]
    async with world.delivery(database_timeout_seconds=0.5) as client, client.stream(alice) as events:
        await take(events, 1)
        world.postgres_server.stop()
        try:
            page = await get_page(client, alice, conversation_id)
            assert [m["body"]["text"] for m in page["messages"]] == ["before"]
            assert len((await client.get(alice, "/v1/conversations")).json()["conversations"]) == 1
            frame = entry.payload.replace(b'"seq":2', b'"seq":3')
            await world.redis.publish(f"conv:{{{conversation_id}}}:live", b"3 MessageSent x\n" + frame)
            assert seqs(await take(events, 1)) == [3]
            async with client.stream(alice) as another:
                assert [event.event for event in await take(another, 1)] == ["ready"]
            assert (await client.get(alice, "/readyz")).json()["postgres"] == "down"

            refused = await client.get(alice, f"/v1/conversations/{uuid.uuid4()}")
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            world.redis_server.stop()
            for path in ("/v1/conversations", "/v1/stream", "/readyz"):
                answer = await client.get(alice, path)
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert (await client.get(alice, "/healthz")).status_code == 200
        finally:
            world.postgres_server.start()


async def test_a_hole_that_nobody_can_fill_is_told_as_a_gap(world: World) -> None:
    alice = await world.register()
    conversation_id = await world.create_conversation(alice)
    entry = (await world.log.read_entries(conversation_id, after_seq=0, limit=1))[0]
    settings = {"database_timeout_seconds": 0.3, "stream_proof_seconds": 0.5}
    async with world.delivery(**settings) as client, client.stream(alice) as events:
        await take(events, 1)
        world.postgres_server.stop()
        try:
            channel = f"conv:{{{conversation_id}}}:live"
            await world.redis.publish(channel, b"4 MessageSent x\n" + entry.payload)
            (gap,) = await take(events, 1)
            assert json.loads(gap.data) == {
                "conversation_id": conversation_id,
                "after_seq": 1,
                "reason": "unavailable",
            }
            await world.redis.publish(channel, b"5 MessageSent x\n" + entry.payload)
            (following,) = await take(events, 1)
            assert following.event == "MessageSent"
        finally:
            world.postgres_server.start()


async def test_a_stream_ends_when_its_token_expires(world: World) -> None:
    alice = await world.register(lifetime_seconds=1.5)
    started = time.monotonic()
    async with world.delivery() as client, client.stream(alice) as events:
        ready, goodbye = [event async for event in events]
        assert (ready.event, goodbye.event) == ("ready", "goodbye")
        assert json.loads(goodbye.data) == {"reason": "token_expired", "reconnect_in_ms": 0}
    assert 1.0 < time.monotonic() - started < 5


async def test_an_idle_stream_carries_comments(world: World) -> None:
    alice = await world.register()
    async with world.delivery(stream_comment_seconds=0.2) as client:
        async with client.http.stream("GET", f"{client.delivery_url}/v1/stream", headers=alice.headers) as response:
            assert response.headers["cache-control"] == "no-store"
            assert response.headers["x-accel-buffering"] == "no"
            assert response.headers["content-type"].startswith("text/event-stream")
            received = b""
            async with asyncio.timeout(10):
                async for chunk in response.aiter_raw():
                    received += chunk
                    if received.count(b"\n:\n") >= 2:
                        break
        assert received.startswith(b"retry: ")


async def test_a_slow_client_is_cut_off_and_resumes_without_loss(world: World) -> None:
    alice, bob = await world.register(), await world.register()
    conversation_id = await world.create_conversation(alice, bob)
    async with world.delivery(stream_queue_events=16) as client:
        host, port = client.delivery_url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
        writer.write(f"GET /v1/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {bob.token}\r\n\r\n".encode())
        received = await reader.readuntil(b"event: ready")
        async with client.stream(bob) as quick:
            quick_id = (await take(quick, 1))[0].id
            for number in range(40):
                await world.send(conversation_id, str(number) + "x" * 15_000)
                quick_id = (await take(quick, 1))[0].id
            for number in range(400):
                await world.send(conversation_id, str(40 + number) + "x" * 15_000)
                quick_id = (await take(quick, 1))[0].id
        metrics = (await client.get(bob, "/metrics")).text
        assert 'delivery_streams_ended_total{reason="slow_client"} 1.0' in metrics
        while chunk := await reader.read(65536):
            received += chunk
        writer.close()
        if b"event: goodbye" in received:  # the last word does not always reach a client that reads too slowly
            received, _, goodbye = received.rpartition(b"retry: ")
            assert b'"slow_client"' in goodbye
        complete = received.split(b"\r\n\r\n", 1)[1].split(b"id: ")[1:]
        ids = [part.split(b"\n")[0] for part in complete if b"\n\n" in part]
        assert len(ids) < 441
        async with client.stream(bob, last_event_id=ids[-1].decode()) as events:
            rest = await take(events, 1 + 440 - (len(ids) - 1), within_seconds=30)
            assert seqs(rest[1:]) == list(range(len(ids) + 1, 442))
            assert rest[-1].id == quick_id


async def test_a_client_that_leaves_is_forgotten(world: World) -> None:
    alice = await world.register()
    await world.create_conversation(alice)
    async with world.delivery() as client:
        async with client.stream(alice) as events:
            await take(events, 1)
            metrics = (await client.get(alice, "/metrics")).text
            assert "delivery_open_streams 1.0" in metrics
            assert "delivery_watched_channels 2.0" in metrics
        async with asyncio.timeout(5):
            while "delivery_open_streams 0.0" not in (metrics := (await client.get(alice, "/metrics")).text):
                await asyncio.sleep(0.01)
        assert "delivery_watched_channels 0.0" in metrics
        assert await world.redis.pubsub_channels() == []


async def test_many_watchers_share_one_subscription(world: World) -> None:
    alice = await world.register()
    conversation_id = await world.create_conversation(alice)
    async with world.delivery() as client, asyncio.TaskGroup() as group:

        async def watch() -> list[str]:
            async with client.stream(alice, conversation_id=conversation_id) as events:
                await take(events, 1)
                ready.release()
                return texts(await take(events, 20))

        ready = asyncio.Semaphore(0)
        watching = [group.create_task(watch()) for _ in range(30)]
        for _ in watching:
            await ready.acquire()
        channel = f"conv:{{{conversation_id}}}:live"
        assert await world.redis.pubsub_numsub(channel) == [(channel.encode(), 1)]
        await world.send(conversation_id, *map(str, range(20)))
        assert [await task for task in watching] == [list(map(str, range(20)))] * 30


async def test_sigterm_ends_streams_and_the_process_promptly(world: World) -> None:
    alice = await world.register()
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "stream_apps.delivery", "--port", str(port)],
        cwd=Path(__file__).resolve().parents[2],
        env=world.delivery_environment() | {"PATH": "/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    client = ChatClient("http://ingest.invalid", f"http://127.0.0.1:{port}")
    try:
        async with asyncio.timeout(20):
            while True:
                try:
                    assert (await client.get(alice, "/readyz")).json()["status"] == "ready"
                    break
                except httpx.TransportError:
                    await asyncio.sleep(0.05)
        async with client.stream(alice) as events:
            await take(events, 1)
            conversation_id = await world.create_conversation(alice)
            await world.send(conversation_id, "hello")
            assert seqs(await take(events, 2)) == [1, 2]
            started = time.monotonic()
            process.send_signal(signal.SIGTERM)
            (goodbye,) = [event async for event in events]
            assert json.loads(goodbye.data)["reason"] == "shutdown"
            assert 200 <= json.loads(goodbye.data)["reconnect_in_ms"] <= 3000
        output, _ = await asyncio.to_thread(process.communicate, timeout=10)
        assert time.monotonic() - started < 2
        assert process.returncode in {0, -signal.SIGTERM}
        assert "Traceback" not in output
        assert "ERROR" not in output
    finally:
        process.kill()
        process.communicate()
        await client.close()


@pytest.fixture
def part() -> Iterator[Upstream]:
    with start_upstream("part") as own:
        yield own


async def test_whoever_is_signed_in_is_told_which_parts_answer(world: World, part: Upstream) -> None:
    alice = await world.register()
    parts = {"alive": f"http://127.0.0.1:{part.port}/healthz", "dead": f"http://127.0.0.1:{free_port()}/healthz"}
    async with world.delivery(parts=parts) as client:
        answers = await asyncio.gather(*(client.get(alice, "/v1/parts") for _ in range(5)))
        assert (await client.http.get(f"{client.delivery_url}/v1/parts")).status_code == 401
    found = answers[0].json()["parts"]
    assert [(each["name"], each["state"]) for each in found] == [
        ("delivery", "up"),
        ("redis", "up"),
        ("postgres", "up"),
        ("alive", "up"),
        ("dead", "down"),
    ]
    assert all((each["answered_in_ms"] is None) == (each["state"] == "down") for each in found)
    assert len(part.requests) == 1, "however many look, the parts are asked once"
    assert all(each.json()["parts"] == found for each in answers)
