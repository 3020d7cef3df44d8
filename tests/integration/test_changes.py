"""What happens to messages and participants after they came, on real servers: edits, deletions, comings and goings,
receipts. Whatever is asked is asked of Redis and of Postgres, and both say the same."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.chat_client import ChatClient, StreamEvent, User
from tests.integration.servers import Server, start_postgres, start_redis
from tests.integration.world import World, create_world


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Server, Server]]:
    with ExitStack() as stack:
        yield stack.enter_context(start_redis()), stack.enter_context(start_postgres())


@pytest.fixture
async def world(servers: tuple[Server, Server], tmp_path: Path) -> AsyncIterator[World]:
    async with create_world(*servers, tmp_path) as own:
        yield own


async def take(events: AsyncIterator[StreamEvent], count: int) -> list[StreamEvent]:
    taken: list[StreamEvent] = []
    async with asyncio.timeout(10):
        while len(taken) < count:
            taken.append(await anext(events))
    return taken


async def is_silent(events: AsyncIterator[StreamEvent]) -> bool:
    """Whether nothing comes for a while. (The stream cannot be read on after this.)"""
    try:
        async with asyncio.timeout(0.4):
            await anext(events)
    except TimeoutError:
        return True
    return False


def happened(events: list[StreamEvent]) -> list[tuple[str, int]]:
    return [(event.event, json.loads(event.data)["seq"]) for event in events]


async def get(client: ChatClient, user: User, path: str, **query: Any) -> Any:
    answer = await client.get(user, path, **query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def ask_everything(client: ChatClient, user: User, conversation_id: str) -> dict[str, Any]:
    """All that delivery tells a user of a conversation."""
    own = f"/v1/conversations/{conversation_id}"
    return {
        "inbox": await get(client, user, "/v1/conversations"),
        "conversation": await get(client, user, own),
        "newest": await get(client, user, f"{own}/messages", limit=3),
        "oldest": await get(client, user, f"{own}/messages", after_seq=0, limit=3),
        "all": await get(client, user, f"{own}/messages", limit=200),
        "events": await get(client, user, f"{own}/events", limit=200),
    }


async def ask_both(world: World, client: ChatClient, user: User, conversation_id: str) -> dict[str, Any]:
    """The same, and that it is the same from Redis, from Postgres and from rebuilt tables."""
    told = await ask_everything(client, user, conversation_id)
    await world.redis.flushall()
    assert await ask_everything(client, user, conversation_id) == told
    await world.rebuild(conversation_id)
    assert await ask_everything(client, user, conversation_id) == told
    return told


def texts(page: dict[str, Any]) -> list[str | None]:
    return [None if m["deleted"] else m["body"]["text"] for m in page["messages"]]


async def test_pages_show_messages_as_they_are_now(world: World) -> None:
    alice, bob = await world.register(), await world.register()
    conversation_id = await world.create_conversation(alice, bob)
    ids = await world.send(conversation_id, *"abcdef")
    await world.edit(conversation_id, ids[0], "a once")
    await world.edit(conversation_id, ids[0], "a twice")
    await world.delete(conversation_id, ids[4])
    await world.edit(conversation_id, ids[5], "f better")
    async with world.delivery() as client:
        told = await ask_both(world, client, bob, conversation_id)
    assert texts(told["all"]) == ["a twice", "b", "c", "d", None, "f better"]
    assert texts(told["oldest"]) == ["a twice", "b", "c"]
    assert texts(told["newest"]) == ["d", None, "f better"]
    edited, *_, deleted, _ = told["all"]["messages"]
    assert (edited["edited"], edited["edited_at"] > edited["created_at"], edited["seq"]) == (True, True, 2)
    assert (deleted["message_id"], deleted["body"], deleted["edited"]) == (ids[4], None, False)
    (line,) = told["inbox"]["conversations"]
    assert (line["last_message"]["body"]["text"], line["last_message"]["edited"]) == ("f better", True)
    assert line["unread_count"] == 5, "what was deleted is not unread"


async def test_a_deleted_last_message_is_a_tombstone_in_the_inbox_until_the_next_one(world: World) -> None:
    alice = await world.register()
    conversation_id = await world.create_conversation(alice)
    ids = await world.send(conversation_id, "a", "b")
    await world.delete(conversation_id, ids[1])
    async with world.delivery() as client:
        last = (await ask_both(world, client, alice, conversation_id))["inbox"]["conversations"][0]["last_message"]
        assert (last["message_id"], last["body"], last["deleted"]) == (ids[1], None, True)
        await world.send(conversation_id, "c")
        last = (await ask_both(world, client, alice, conversation_id))["inbox"]["conversations"][0]["last_message"]
        assert (last["body"]["text"], last["deleted"]) == ("c", False)


async def test_a_change_is_read_with_ones_own_write_before_the_tables_have_it(world: World) -> None:
    alice = await world.register()
    conversation_id = await world.create_conversation(alice)
    (message_id,) = await world.send(conversation_id, "a")
    await world.edit(conversation_id, message_id, "b", project=False)
    async with world.delivery() as client:
        path = f"/v1/conversations/{conversation_id}/messages"
        assert texts(await get(client, alice, path)) == ["a"]
        assert texts(await get(client, alice, path, min_seq=3)) == ["b"]


async def test_a_message_that_left_the_timeline_is_shown_as_it_is_now(world: World) -> None:
    alice = await world.register()
    conversation_id = await world.create_conversation(alice)
    ids = await world.send(conversation_id, *"abcd")
    await world.edit(conversation_id, ids[0], "a better")
    await world.redis.xtrim(f"conv:{{{conversation_id}}}:timeline", maxlen=2, approximate=False)
    await world.redis.delete(f"conv:{{{conversation_id}}}:changes")
    async with world.delivery() as client:
        page = await get(client, alice, f"/v1/conversations/{conversation_id}/messages")
    assert texts(page) == ["a better", "b", "c", "d"]


async def test_a_former_participant_sees_what_it_saw_and_no_more(world: World) -> None:
    alice, bob, carol = await world.register(), await world.register(), await world.register()
    conversation_id = await world.create_conversation(alice, bob, title="before")
    ids = await world.send(conversation_id, "a", "b")
    await world.advance_receipt(conversation_id, bob, delivered_seq=3, read_seq=2)
    left_seq = await world.leave(conversation_id, bob)
    await world.edit(conversation_id, ids[0], "a behind his back")
    await world.send(conversation_id, "c")
    await world.change_title(conversation_id, "after")
    await world.join(conversation_id, carol)
    await world.advance_receipt(conversation_id, alice, delivered_seq=6, read_seq=6)
    async with world.delivery() as client:
        told = await ask_both(world, client, bob, conversation_id)
        present = await ask_both(world, client, alice, conversation_id)
    assert texts(told["all"]) == ["a", "b"]
    assert [event["seq"] for event in told["events"]["events"]] == [1, 2, 3, left_seq]
    assert told["events"]["next"] is None
    (line,) = told["inbox"]["conversations"]
    assert (line["title"], line["seq"], line["left_seq"]) == ("before", left_seq, left_seq)
    assert (line["last_message"]["body"]["text"], line["unread_count"]) == ("b", 1)
    details = told["conversation"]
    assert (details["title"], details["seq"]) == ("before", left_seq)
    stays = {p["user_id"]: (p["role"], p["joined_seq"], p["left_seq"]) for p in details["participants"]}
    assert stays == {alice.user_id: ("admin", 1, None), bob.user_id: ("member", 1, left_seq)}
    receipts = {r["user_id"]: (r["delivered_seq"], r["read_seq"]) for r in details["receipts"]}
    assert receipts == {alice.user_id: (left_seq, left_seq), bob.user_id: (3, 2)}
    assert texts(present["all"]) == ["a behind his back", "b", "c"]
    assert present["conversation"]["title"] == "after"
    assert len(present["conversation"]["participants"]) == 3
    assert {r["user_id"]: r["read_seq"] for r in present["conversation"]["receipts"]} == {
        alice.user_id: 6,
        bob.user_id: 2,
    }


async def test_who_joins_sees_what_comes_from_there_on(world: World) -> None:
    alice, bob = await world.register(), await world.register()
    conversation_id = await world.create_conversation(alice)
    await world.send(conversation_id, "before")
    joined_seq = await world.join(conversation_id, bob)
    async with world.delivery() as client:
        told = await ask_both(world, client, bob, conversation_id)
        assert texts(told["all"]) == []
        assert told["inbox"]["conversations"][0]["last_message"] is None
        assert [event["seq"] for event in told["events"]["events"]] == [joined_seq]
        await world.send(conversation_id, "after")
        told = await ask_both(world, client, bob, conversation_id)
    assert (texts(told["all"]), told["all"]["prev"]) == (["after"], None)
    assert told["inbox"]["conversations"][0]["unread_count"] == 1


async def test_who_was_removed_and_comes_back_sees_nothing_of_what_was_said_in_between(world: World) -> None:
    alice, bob = await world.register(), await world.register()
    conversation_id = await world.create_conversation(alice, bob)
    async with world.delivery() as client:
        async with client.stream(bob) as events:
            (ready,) = await take(events, 1)
            await world.send(conversation_id, "one")
            left_seq = await world.leave(conversation_id, bob)
            await world.send(conversation_id, "in between")
            (one, left) = await take(events, 2)
            assert happened([one, left]) == [("MessageSent", 2), ("ParticipantLeft", left_seq)]
            joined_seq = await world.join(conversation_id, bob)
            await world.send(conversation_id, "two")
            back = await take(events, 2)
            expected = [("ParticipantJoined", joined_seq), ("MessageSent", joined_seq + 1)]
            assert happened(back) == expected
        for cursor in (ready, one, left):
            async with client.stream(bob, last_event_id=cursor.id) as events:
                _, *resumed = await take(events, 3)
                assert happened(resumed) == expected
                assert await is_silent(events)
        told = await ask_both(world, client, bob, conversation_id)
    assert texts(told["all"]) == ["two"]


@pytest.mark.parametrize("is_narrowed", [False, True])
async def test_a_stream_ends_for_a_conversation_with_the_leaving(world: World, is_narrowed: bool) -> None:
    alice, bob = await world.register(), await world.register()
    conversation_id = await world.create_conversation(alice, bob)
    narrowed = conversation_id if is_narrowed else None
    async with world.delivery() as client:
        async with client.stream(bob, conversation_id=narrowed) as events:
            (ready,) = await take(events, 1)
            await world.send(conversation_id, "one", project=False)
            left_seq = await world.leave(conversation_id, bob, project=False)
            await world.send(conversation_id, "beyond", "far beyond")
            assert happened(await take(events, 2)) == [("MessageSent", 2), ("ParticipantLeft", left_seq)]
            await world.send(conversation_id, "still beyond")
            await world.advance_receipt(conversation_id, alice, delivered_seq=4, read_seq=4)
            assert await is_silent(events)
        async with client.stream(bob, conversation_id=narrowed, last_event_id=ready.id) as events:
            _, *missed = await take(events, 3)
            assert happened(missed) == [("MessageSent", 2), ("ParticipantLeft", left_seq)]
            assert await is_silent(events)
        async with client.stream(bob, conversation_id=narrowed) as events:
            assert [event.event for event in await take(events, 1)] == ["ready"]
            await world.send(conversation_id, "and still")
            assert await is_silent(events)


async def test_what_was_missed_is_never_read_past_the_leaving(world: World) -> None:
    alice, bob = await world.register(), await world.register()
    conversation_id = await world.create_conversation(alice, bob)
    async with world.delivery() as client, client.stream(bob) as events:
        await take(events, 1)
        await world.redis.client_kill_filter(_type="pubsub")
        await world.send(conversation_id, *map(str, range(60)), project=False)
        left_seq = await world.leave(conversation_id, bob, project=False)
        await world.redis.flushall()
        await world.send(conversation_id, *map(str, range(60)), project=False)
        await world.rebuild(conversation_id)
        missed = await take(events, 61)
        assert [seq for _, seq in happened(missed)] == list(range(2, left_seq + 1))
        assert await is_silent(events)


async def test_who_is_brought_in_follows_live_and_the_successor_is_admin(world: World) -> None:
    alice, bob = await world.register(), await world.register()
    conversation_id = await world.create_conversation(alice)
    async with world.delivery() as client:
        async with client.stream(bob) as events:
            await take(events, 1)
            joined_seq = await world.join(conversation_id, bob)
            await world.send(conversation_id, "welcome")
            assert happened(await take(events, 2)) == [
                ("ParticipantJoined", joined_seq),
                ("MessageSent", joined_seq + 1),
            ]
        await world.leave(conversation_id, alice, successor=bob)
        details = (await ask_both(world, client, bob, conversation_id))["conversation"]
    assert [p["role"] for p in details["participants"] if p["left_seq"] is None] == ["admin"]


async def test_receipts_are_told_live_without_an_id_and_kept_as_maxima(world: World) -> None:
    alice, bob = await world.register(), await world.register()
    conversation_id = await world.create_conversation(alice, bob)
    await world.send(conversation_id, "one", "two")
    async with world.delivery() as client:
        async with client.stream(alice) as events:
            (ready,) = await take(events, 1)
            payload = await world.advance_receipt(conversation_id, bob, delivered_seq=3, read_seq=2)
            await world.advance_receipt(conversation_id, bob, delivered_seq=3, read_seq=2)
            await world.advance_receipt(conversation_id, bob, delivered_seq=2, read_seq=0)
            await world.send(conversation_id, "three")
            receipt, sent = await take(events, 2)
            assert (receipt.event, receipt.id, receipt.data.encode()) == ("ReceiptAdvanced", "", payload)
            assert sent.event == "MessageSent"
        async with client.stream(alice, last_event_id=ready.id) as events:
            assert [event.event for event in await take(events, 2)] == ["ready", "MessageSent"]
        details = (await ask_both(world, client, alice, conversation_id))["conversation"]
        assert details["receipts"] == [{"user_id": bob.user_id, "delivered_seq": 3, "read_seq": 2}]
        inbox = (await ask_both(world, client, bob, conversation_id))["inbox"]
    assert inbox["conversations"][0]["unread_count"] == 2


async def test_a_stranger_stays_one_and_a_former_participant_does_not_become_one(world: World) -> None:
    alice, bob, mallory = await world.register(), await world.register(), await world.register()
    conversation_id = await world.create_conversation(alice, bob)
    await world.leave(conversation_id, bob)
    async with world.delivery() as client:
        for path in ("", "/messages", "/events"):
            url = f"/v1/conversations/{conversation_id}{path}"
            assert (await client.get(bob, url)).status_code == 200
            assert (await client.get(mallory, url)).status_code == 404


async def test_a_new_title_is_shown_and_none_is_none(world: World) -> None:
    alice = await world.register()
    conversation_id = await world.create_conversation(alice)
    async with world.delivery() as client:
        for title in ("another", None):
            await world.change_title(conversation_id, title)
            told = await ask_both(world, client, alice, conversation_id)
            assert told["conversation"]["title"] == title
            assert told["inbox"]["conversations"][0]["title"] == title


async def test_a_page_that_the_client_has_is_not_sent_again(world: World) -> None:
    alice = await world.register()
    conversation_id = await world.create_conversation(alice)
    (message_id,) = await world.send(conversation_id, "one")
    async with world.delivery() as client:
        url = f"{client.delivery_url}/v1/conversations/{conversation_id}/messages"
        first = await client.http.get(url, headers=alice.headers)
        known = alice.headers | {"If-None-Match": f'"other", {first.headers["etag"]}'}
        again = await client.http.get(url, headers=known)
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
        await world.redis.flushall()
        assert (await client.http.get(url, headers=known)).status_code == 304, "Postgres gives the same page"
        await world.edit(conversation_id, message_id, "two", project=False)
        changed = await client.http.get(url, headers=known)
        assert (changed.status_code, texts(changed.json())) == (200, ["two"])
