"""The WebSocket on real servers, frame by frame (docs/live.md)."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin, Subprotocol

from stream_apps.delivery.live.commands import MAX_FRAME_BYTES
from stream_apps.delivery.live.connection import MAX_SUBSCRIPTIONS
from tests.chat_client import ChatClient, User
from tests.integration.servers import Server, start_postgres, start_redis
from tests.integration.world import World, create_world

PROTOCOL = Subprotocol("chat4all.v1")


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Server, Server]]:
    with ExitStack() as stack:
        yield stack.enter_context(start_redis()), stack.enter_context(start_postgres())


@pytest.fixture
async def world(servers: tuple[Server, Server], tmp_path: Path) -> AsyncIterator[World]:
    async with create_world(*servers, tmp_path) as own:
        yield own


@dataclass
class Socket:
    """A WebSocket that is read line by line. Heartbeats and presence are passed over."""

    raw: ClientConnection
    lines: list[dict[str, Any]]

    async def say(self, **frame: Any) -> None:
        await self.raw.send(json.dumps(frame))

    async def hear(self, *, with_presence: bool = False) -> dict[str, Any]:
        async with asyncio.timeout(10):
            while True:
                while not self.lines:
                    text = await self.raw.recv(decode=True)
                    self.lines = [json.loads(line) for line in text.split("\n")]
                line = self.lines.pop(0)
                is_presence = line["type"] == "event" and line["event"]["type"] == "PresenceChanged"
                if line["type"] != "heartbeat" and is_presence <= with_presence:
                    return line

    async def ask(self, **frame: Any) -> dict[str, Any]:
        await self.say(**frame)
        return await self.hear()

    async def hear_events(self, count: int) -> list[dict[str, Any]]:
        lines = [await self.hear() for _ in range(count)]
        assert {line["type"] for line in lines} == {"event"}, lines
        return lines

    async def hear_the_end(self) -> tuple[int, dict[str, Any]]:
        """The close code, and the goodbye before it."""
        goodbye: dict[str, Any] = {}
        try:
            while True:
                line = await self.hear()
                goodbye = line if line["type"] == "goodbye" else goodbye
        except ConnectionClosed as closed:
            return 0 if closed.rcvd is None else closed.rcvd.code, goodbye


def address(client: ChatClient) -> str:
    return client.delivery_url.replace("http", "ws") + "/v1/ws"


@asynccontextmanager
async def open_socket(client: ChatClient, user: User | None, **options: Any) -> AsyncIterator[Socket]:
    """A connection with the token as a subprotocol; without a user one that has yet to say who it is."""
    offered = [PROTOCOL] + ([] if user is None else [Subprotocol(f"bearer.{user.token}")])
    async with connect(address(client), subprotocols=offered, proxy=None, **options) as raw:
        assert raw.subprotocol == PROTOCOL
        socket = Socket(raw, [])
        if user is not None:
            welcome = await socket.hear()
            assert (welcome["type"], welcome["user_id"]) == ("welcome", user.user_id)
        yield socket


def texts(lines: list[dict[str, Any]]) -> list[str]:
    return [line["event"]["body"]["text"] for line in lines]


async def test_everything_is_told_live_and_resumed_by_cursor(world: World) -> None:
    alice, bob = await world.register(), await world.register()
    ids = [await world.create_conversation(alice, bob) for _ in range(6)]
    async with world.delivery() as client:
        async with open_socket(client, bob) as socket:
            subscribed = await socket.ask(type="subscribe", ref="r1")
            assert {**subscribed, "cursor": ""} == {
                "type": "subscribed",
                "ref": "r1",
                "conversation_id": None,
                "resumed": False,
                "cursor": "",
            }
            for number in range(12):
                await world.send(ids[number % 6], str(number))
            told = await socket.hear_events(12)
            assert texts(told) == [str(number) for number in range(12)]
            stored = await world.log.read_entries(ids[0], after_seq=1, limit=1)
            assert told[0]["event"] == json.loads(stored[0].payload)
        await world.send(ids[3], "while away")
        created = await world.create_conversation(alice, bob)
        async with open_socket(client, bob) as socket:
            resumed = await socket.ask(type="subscribe", cursor=told[8]["cursor"])
            assert resumed["resumed"] is True
            missed = await socket.hear_events(5)
            assert sorted(t for t in texts([m for m in missed if "body" in m["event"]])) == [
                "10",
                "11",
                "9",
                "while away",
            ]
            assert created in {line["event"]["conversation_id"] for line in missed}
        async with client.stream(bob, last_event_id=missed[-1]["cursor"]) as events:
            assert json.loads((await anext(events)).data) == {"resumed": True}


async def test_single_conversations_are_followed_after_a_seq(world: World) -> None:
    alice, bob = await world.register(), await world.register()
    one, two, other = [await world.create_conversation(alice, bob) for _ in range(3)]
    await world.send(one, *map(str, range(5)))
    async with world.delivery() as client, open_socket(client, bob) as socket:
        first = await socket.ask(type="subscribe", conversation_id=one, after_seq=4)
        assert first == {"type": "subscribed", "conversation_id": one, "resumed": True, "after_seq": 4}
        backlog = await socket.hear_events(2)
        assert [line["event"]["seq"] for line in backlog] == [5, 6]
        assert all(set(line) == {"type", "event"} for line in backlog), "its seq is enough to resume from"
        second = await socket.ask(type="subscribe", conversation_id=two)
        assert (second["resumed"], second["after_seq"]) == (False, 1)
        await world.send(other, "not this")
        await world.send(two, "this")
        await world.send(one, "and that")
        assert texts(await socket.hear_events(2)) == ["this", "and that"]
        assert (await socket.ask(type="unsubscribe", conversation_id=one))["type"] == "unsubscribed"
        await world.send(one, "no more of this")
        await world.send(two, "the end")
        assert texts(await socket.hear_events(1)) == ["the end"]


async def test_the_token_may_come_in_the_first_frame(world: World) -> None:
    alice = await world.register()
    async with world.delivery() as client, open_socket(client, None) as socket:
        welcome = await socket.ask(type="authenticate", token=alice.token, ref="me")
        assert welcome["user_id"] == alice.user_id
        assert welcome["heartbeat_seconds"] == 15


@pytest.mark.parametrize("way", ["subprotocol", "frame"])
@pytest.mark.parametrize(
    ("fault", "code", "reason"),
    [
        ("nonsense", 4401, "unauthenticated"),
        ("expired", 4401, "unauthenticated"),
        ("other scope", 4403, "insufficient_scope"),
    ],
)
async def test_a_token_that_is_not_good_is_told_so_and_no_more(
    world: World, way: str, fault: str, code: int, reason: str
) -> None:
    alice = await world.register()
    token = {
        "nonsense": "nonsense",
        "expired": world.make_token(alice.user_id, lifetime_seconds=-1),
        "other scope": world.make_token(alice.user_id, scope="other"),
    }[fault]
    async with world.delivery() as client:
        offered = [PROTOCOL, Subprotocol(f"bearer.{token}")] if way == "subprotocol" else [PROTOCOL]
        async with connect(address(client), subprotocols=offered, proxy=None) as raw:
            socket = Socket(raw, [])
            if way == "frame":
                await socket.say(type="authenticate", token=token)
            closed, goodbye = await socket.hear_the_end()
    assert (closed, goodbye) == (code, {"type": "goodbye", "reason": reason, "reconnect_in_ms": None})


async def test_whoever_says_something_else_first_or_nothing_at_all_is_sent_away(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream_apps.delivery.socket_routes.AUTHENTICATE_WITHIN_SECONDS", 0.2)
    async with world.delivery() as client:
        async with open_socket(client, None) as socket:
            await socket.say(type="subscribe")
            assert (await socket.hear_the_end())[0] == 4401
        async with open_socket(client, None) as socket:
            assert (await socket.hear_the_end())[0] == 4401


@pytest.mark.parametrize("origin", ["https://evil.example", "http://127.0.0.1:1", "null", "nonsense"])
async def test_pages_of_another_origin_are_refused(world: World, origin: str) -> None:
    alice = await world.register()
    async with world.delivery() as client:
        with pytest.raises(InvalidStatus) as refused:
            async with open_socket(client, alice, origin=Origin(origin)):
                pass
    assert refused.value.response.status_code == 403
    assert json.loads(refused.value.response.body)["type"] == "urn:chat4all:problem:foreign-origin"


async def test_pages_of_its_own_and_of_allowed_origins_connect(world: World) -> None:
    alice = await world.register()
    async with world.delivery(allowed_origins=["https://chat.example"]) as client:
        for origin in (client.delivery_url, "https://chat.example"):
            async with open_socket(client, alice, origin=Origin(origin)) as socket:
                assert (await socket.ask(type="ping", ref="x")) == {"type": "pong", "ref": "x"}


async def test_a_handshake_without_the_subprotocol_is_refused_and_plain_http_told_how_to_come(world: World) -> None:
    async with world.delivery() as client:
        with pytest.raises(InvalidStatus) as refused:
            async with connect(address(client), proxy=None):
                pass
        plain = await client.http.get(f"{client.delivery_url}/v1/ws")
    assert refused.value.response.status_code == 400
    assert (plain.status_code, plain.headers["upgrade"]) == (426, "websocket")


async def test_the_token_is_renewed_in_place(world: World) -> None:
    alice = await world.register(lifetime_seconds=2)
    conversation_id = await world.create_conversation(alice)
    async with world.delivery() as client, open_socket(client, alice) as socket:
        await socket.ask(type="subscribe")
        renewed = await socket.ask(type="authenticate", token=world.make_token(alice.user_id), ref="again")
        assert (renewed["type"], renewed["ref"]) == ("authenticated", "again")
        await asyncio.sleep(3.2)
        await world.send(conversation_id, "still here")
        assert texts(await socket.hear_events(1)) == ["still here"]


async def test_a_connection_ends_with_its_token_and_with_another_users(world: World) -> None:
    alice, bob = await world.register(lifetime_seconds=1.5), await world.register()
    async with world.delivery() as client:
        async with open_socket(client, alice) as socket:
            assert await socket.hear_the_end() == (
                4401,
                {"type": "goodbye", "reason": "token_expired", "reconnect_in_ms": 0},
            )
        async with open_socket(client, bob) as socket:
            await socket.say(type="authenticate", token=alice.token)
            assert (await socket.hear_the_end())[0] == 4401


async def test_what_cannot_be_carried_out_is_an_error_and_the_connection_goes_on(world: World) -> None:
    alice, mallory = await world.register(), await world.register()
    conversation_id = await world.create_conversation(alice)
    async with world.delivery() as client, open_socket(client, mallory) as socket:
        refused: list[tuple[dict[str, Any], str]] = [
            ({"type": "subscribe", "conversation_id": conversation_id}, "conversation_not_found"),
            ({"type": "subscribe", "conversation_id": str(uuid.uuid4())}, "conversation_not_found"),
            ({"type": "typing", "conversation_id": conversation_id}, "conversation_not_found"),
            ({"type": "unsubscribe"}, "not_subscribed"),
            ({"type": "subscribe", "after_seq": 1}, "malformed"),
            ({"type": "subscribe", "conversation_id": conversation_id, "cursor": "x"}, "malformed"),
            ({"type": "subscribe", "conversation_id": conversation_id, "after_seq": -1}, "malformed"),
            ({"type": "nonsense"}, "malformed"),
            ({"type": "ping", "more": 1}, "malformed"),
        ]
        for frame, code in refused:
            answer = await socket.ask(**frame)
            assert (answer["type"], answer["code"]) == ("error", code), answer
        await socket.raw.send("no JSON")
        assert (await socket.hear())["code"] == "malformed"
        await socket.raw.send(b"\x00\x01")
        assert (await socket.hear())["code"] == "malformed"
        await socket.say(type="subscribe")
        assert (await socket.hear())["type"] == "subscribed"
        assert (await socket.ask(type="subscribe", ref="b"))["code"] == "already_subscribed"
        own = await world.create_conversation(mallory)
        await socket.hear_events(1)
        assert (await socket.ask(type="subscribe", conversation_id=own))["code"] == "already_subscribed"


async def test_a_connection_follows_so_many_conversations_and_no_more(world: World) -> None:
    alice = await world.register()
    ids = [await world.create_conversation(alice) for _ in range(MAX_SUBSCRIPTIONS + 1)]
    async with world.delivery() as client, open_socket(client, alice) as socket:
        for conversation_id in ids[:-1]:
            assert (await socket.ask(type="subscribe", conversation_id=conversation_id))["type"] == "subscribed"
            await asyncio.sleep(0.02)
        assert (await socket.ask(type="subscribe", conversation_id=ids[-1]))["code"] == "too_many_subscriptions"


async def test_a_frame_that_is_too_large_and_frames_that_are_too_many_end_the_connection(world: World) -> None:
    alice = await world.register()
    async with world.delivery() as client:
        async with open_socket(client, alice) as socket:
            await socket.raw.send("x" * (MAX_FRAME_BYTES + 1))
            assert (await socket.hear_the_end())[0] == 1009
        async with open_socket(client, alice) as socket:
            for _ in range(200):
                await socket.say(type="ping")
            code, goodbye = await socket.hear_the_end()
            assert (code, goodbye["reason"]) == (4429, "too_many_frames")
            assert goodbye["reconnect_in_ms"] >= 2000


async def test_typing_is_told_to_the_others_over_both_ways_and_not_twice_per_second(world: World) -> None:
    alice, bob = await world.register(), await world.register()
    conversation_id = await world.create_conversation(alice, bob)
    async with (
        world.delivery() as client,
        open_socket(client, alice) as writer,
        open_socket(client, bob) as reader,
        client.stream(bob) as events,
    ):
        await anext(events)
        await writer.ask(type="subscribe")
        await reader.ask(type="subscribe")
        for _ in range(5):
            await writer.say(type="typing", conversation_id=conversation_id)
        assert (await writer.ask(type="ping"))["type"] == "pong", "one's own typing is not told"
        told = await reader.hear()
        expected = {
            "type": "Typing",
            "conversation_id": conversation_id,
            "user_id": alice.user_id,
            "expires_in_ms": 5000,
        }
        assert told == {"type": "event", "event": expected}
        streamed = await anext(events)
        assert (streamed.event, streamed.id, json.loads(streamed.data)) == ("Typing", "", expected)
        await world.send(conversation_id, "written")
        assert texts([await reader.hear()]) == ["written"]


async def test_who_has_left_can_neither_type_nor_see_who_is_online(world: World) -> None:
    alice, bob = await world.register(), await world.register()
    conversation_id = await world.create_conversation(alice, bob)
    await world.leave(conversation_id, bob)
    async with world.delivery() as client, open_socket(client, bob) as socket, open_socket(client, alice):
        answer = await socket.ask(type="typing", conversation_id=conversation_id)
        assert answer["code"] == "conversation_not_found"
        online = await client.get(bob, f"/v1/conversations/{conversation_id}/presence")
        assert online.json() == {"online": []}


async def test_others_are_told_who_comes_and_goes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream_apps.delivery.live.presence.LEASE_SECONDS", 0.6)
    monkeypatch.setattr("stream_apps.delivery.live.presence.RENEW_SECONDS", 0.3)
    monkeypatch.setattr("stream_apps.delivery.live.presence.GATHER_SECONDS", 0.01)
    alice, bob = await world.register(), await world.register()
    conversation_id = await world.create_conversation(alice, bob)
    path = f"/v1/conversations/{conversation_id}/presence"
    async with world.delivery() as client, open_socket(client, alice) as socket:
        await socket.ask(type="subscribe")

        async def hear_presence(is_online: bool) -> None:
            told = await socket.hear(with_presence=True)
            assert told["event"] == {
                "type": "PresenceChanged",
                "conversation_id": conversation_id,
                "user_id": bob.user_id,
                "online": is_online,
            }

        async with open_socket(client, bob), client.stream(bob):
            await hear_presence(is_online=True)
            assert set((await client.get(alice, path)).json()["online"]) == {alice.user_id, bob.user_id}
        await hear_presence(is_online=False)
        assert (await client.get(alice, path)).json() == {"online": [alice.user_id]}


async def test_a_slow_client_is_cut_off_and_resumes_without_loss(world: World) -> None:
    alice = await world.register()
    conversation_id = await world.create_conversation(alice)
    async with world.delivery(stream_queue_events=16) as client:
        offered = [PROTOCOL, Subprotocol(f"bearer.{alice.token}")]
        seqs: list[int] = []
        async with connect(address(client), subprotocols=offered, proxy=None, max_queue=1, close_timeout=0.1) as raw:
            await raw.send(json.dumps({"type": "subscribe", "conversation_id": conversation_id, "after_seq": 1}))
            for number in range(440):
                await world.send(conversation_id, f"{number}" + "x" * 15_000)
            metrics = (await client.get(alice, "/metrics")).text
            assert 'delivery_streams_ended_total{reason="slow_client"} 1.0' in metrics
            with suppress(ConnectionClosed):
                async for text in raw:
                    lines = [json.loads(line) for line in str(text).split("\n")]
                    seqs += [line["event"]["seq"] for line in lines if line["type"] == "event"]
        assert seqs == list(range(2, 2 + len(seqs)))
        assert len(seqs) < 440
        async with open_socket(client, alice) as socket:
            await socket.ask(type="subscribe", conversation_id=conversation_id, after_seq=seqs[-1])
            rest = await socket.hear_events(440 - len(seqs))
            assert [line["event"]["seq"] for line in rest] == list(range(seqs[-1] + 1, 442))


async def test_an_idle_connection_is_told_that_it_lives(world: World) -> None:
    alice = await world.register()
    async with world.delivery(stream_comment_seconds=0.2) as client, open_socket(client, alice) as socket:
        async with asyncio.timeout(10):
            assert json.loads(await socket.raw.recv(decode=True)) == {"type": "heartbeat"}


async def test_a_delivery_that_stops_says_when_to_come_back(world: World) -> None:
    users = [await world.register() for _ in range(20)]
    ends: list[tuple[int, dict[str, Any]]] = []
    told = asyncio.Event()

    async def stay(client: ChatClient, user: User) -> None:
        async with open_socket(client, user) as socket:
            await socket.ask(type="subscribe")
            welcomed.release()
            ends.append(await socket.hear_the_end())

    welcomed = asyncio.Semaphore(0)
    async with asyncio.TaskGroup() as group, world.delivery() as client:
        for user in users:
            group.create_task(stay(client, user))
        for _ in users:
            await welcomed.acquire()
    told.set()
    assert {code for code, _ in ends} == {1012}
    assert {goodbye["reason"] for _, goodbye in ends} == {"shutdown"}
    assert len({goodbye["reconnect_in_ms"] for _, goodbye in ends}) > 10, "not all at once"


async def test_a_connection_is_told_from_postgres_while_redis_is_away(world: World) -> None:
    alice = await world.register()
    conversation_id = await world.create_conversation(alice)
    async with world.delivery() as client, open_socket(client, alice) as socket:
        await socket.ask(type="subscribe")
        world.redis_server.stop()
        for text in ("while it is away", "again"):
            await world.send(conversation_id, text, project=False)
            assert texts(await socket.hear_events(1)) == [text]
        world.redis_server.start()
        await world.rebuild(conversation_id)
        await world.send(conversation_id, "live again")
        assert texts(await socket.hear_events(1)) == ["live again"]


async def test_who_is_removed_is_told_so_and_nothing_after_it(world: World) -> None:
    alice, bob = await world.register(), await world.register()
    conversation_id, control = await world.create_conversation(alice, bob), await world.create_conversation(alice, bob)
    async with world.delivery() as client:
        async with open_socket(client, bob) as everything, open_socket(client, bob) as one:
            await everything.ask(type="subscribe")
            await one.ask(type="subscribe", conversation_id=conversation_id)
            await one.ask(type="subscribe", conversation_id=control)
            await world.send(conversation_id, "before")
            left_seq = await world.leave(conversation_id, bob)
            await world.send(conversation_id, "after", "and after")
            await world.send(control, "control")
            for socket in (everything, one):
                before, left, shown = await socket.hear_events(3)
                assert texts([before, shown]) == ["before", "control"]
                assert left["event"]["seq"] == left_seq
        async with open_socket(client, bob) as socket:
            await socket.ask(type="subscribe", conversation_id=conversation_id, after_seq=left_seq - 1)
            (left,) = await socket.hear_events(1)
            assert left["event"]["seq"] == left_seq
            assert (await socket.ask(type="ping"))["type"] == "pong"
