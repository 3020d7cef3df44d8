"""Channels on real PostgreSQL and Redis, and real receivers: what is set, routed, delivered, retried and given up."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ingest_api.limits.quotas import Quota
from schemas.topics import DELIVERY_EVENTS
from stream_apps.channels.dispatcher import Patience
from tests.chat_client import User
from tests.integration.desk import Desk, open_desk
from tests.integration.post_office import CHANNELS_ROLE, PARTITION, HandedOver, PostOffice, open_post_office
from tests.integration.servers import Server, login, start_postgres, start_redis
from tests.receivers import Post, receive_webhooks

ME = "/v1/me/channels"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with start_postgres() as own:
        yield own


@pytest.fixture(scope="module")
def redis_server() -> Iterator[Server]:
    with start_redis() as own:
        yield own


@pytest.fixture
async def desk(server: Server, tmp_path: Path) -> AsyncIterator[Desk]:
    async with open_desk(server, tmp_path, webhook_allow_http=True) as own:
        await own.database.execute("DELETE FROM channels")
        yield own


@pytest.fixture
async def office(desk: Desk, redis_server: Server) -> AsyncIterator[PostOffice]:
    async with open_post_office(desk, redis_server) as own:
        yield own


async def state_of(desk: Desk, user: User, channel: str = "webhook") -> dict[str, Any]:
    found: dict[str, Any] = (await desk.ask(user, "GET", f"{ME}/{channel}")).json()
    return found


def texts(messages: list[dict[str, Any]]) -> list[str]:
    return [message["body"]["text"] for message in messages]


# --- Settings ---


async def test_the_same_address_again_changes_nothing_and_shows_no_secret(office: PostOffice) -> None:
    alice = await office.desk.register()
    async with receive_webhooks() as receiver:
        channel_id = await office.set_webhook(alice, receiver)
        again = (await office.desk.ask(alice, "PUT", f"{ME}/webhook", {"url": receiver.url()})).json()
        assert (again["state"], again["secret"]) == ("active", None)
        assert await office.channel_id(alice) == channel_id
        other = (await office.desk.ask(alice, "PUT", f"{ME}/webhook", {"url": receiver.url("/other")})).json()
    assert other["state"] == "unverified"
    assert other["secret"].startswith("whsec_")
    assert await office.channel_id(alice) != channel_id


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.org/",
        "https://",
        "https://user:secret@example.org/",
        "https://example.org/#part",
        "https://exa mple.org/",
        "https://exämple.org/",
        "https://example.org:0/",
        "https://example.org:99999/",
        "https://-x/",
        "javascript:alert(1)",
    ],
)
async def test_what_cannot_be_a_webhook_is_refused_in_a_sentence(desk: Desk, url: str) -> None:
    alice = await desk.register()
    answer = await desk.ask(alice, "PUT", f"{ME}/webhook", {"url": url})
    assert answer.status_code == 422
    assert "url" in answer.json()["detail"]
    assert "secret" not in answer.text


@pytest.mark.parametrize("address", ["alice", "alice@", "@example.org", "a b@example.org", "a@b", "a\n@example.org"])
async def test_what_cannot_be_an_email_address_is_refused(desk: Desk, address: str) -> None:
    alice = await desk.register()
    assert (await desk.ask(alice, "PUT", f"{ME}/email", {"address": address})).status_code == 422


async def test_http_is_refused_unless_the_server_allows_it(server: Server, tmp_path: Path) -> None:
    async with open_desk(server, tmp_path) as desk:
        alice = await desk.register()
        answer = await desk.ask(alice, "PUT", f"{ME}/webhook", {"url": "http://example.org/"})
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:chat4all:problem:address-refused")


async def test_after_ten_wrong_codes_the_right_one_is_not_taken_either(office: PostOffice) -> None:
    alice = await office.desk.register()
    async with receive_webhooks() as receiver:
        await office.desk.ask(alice, "PUT", f"{ME}/webhook", {"url": receiver.url()})
        office.challenges.send(await office.channel_id(alice))
        code = await receiver.code()
        for _ in range(10):
            wrong = await office.desk.ask(alice, "POST", f"{ME}/webhook/verification", {"code": "AAAAAAAAAA"})
            assert wrong.status_code == 409
        right = await office.desk.ask(alice, "POST", f"{ME}/webhook/verification", {"code": code})
    assert right.status_code == 409
    assert (await state_of(office.desk, alice))["state"] == "unverified"


async def test_whoever_sets_many_channels_is_told_to_wait(server: Server, tmp_path: Path) -> None:
    async with open_desk(server, tmp_path, redis_host="", limit_user_challenges=Quota(2, 3600)) as desk:
        alice = await desk.register()
        answers = [
            (await desk.ask(alice, "PUT", f"{ME}/email", {"address": f"a{n}@example.org"})).status_code
            for n in range(3)
        ]
    assert answers == [200, 200, 429]


async def test_nobody_but_the_channels_app_reads_a_secret(server: Server, desk: Desk) -> None:
    alice = await desk.register()
    await desk.ask(alice, "PUT", f"{ME}/webhook", {"url": "https://example.org/"})
    for role in ("chat_api", "chat_reader", "chat_cdc"):
        async with await psycopg.AsyncConnection.connect(**login(server, role)) as connection:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await connection.execute("SELECT secret FROM channel_secrets")
    for statement in ("SELECT address FROM channels", "SELECT code_hash FROM channels"):
        async with await psycopg.AsyncConnection.connect(**login(server, "chat_reader")) as connection:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await connection.execute(statement)
    forbidden = (
        "INSERT INTO outbox VALUES (gen_random_uuid(), 'user', 'user:x', 'x', '{}', NULL, NULL, now())",
        "UPDATE channels SET verified_at = now()",
        "UPDATE channels SET address = 'https://example.com/'",
        "DELETE FROM channels",
        "DELETE FROM conversation_log",
        "SELECT password_hash FROM users",
    )
    for statement in forbidden:
        async with await psycopg.AsyncConnection.connect(**login(server, CHANNELS_ROLE)) as connection:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await connection.execute(statement)


# --- Routing ---


async def test_a_message_goes_to_those_who_were_in_the_conversation_when_it_was_sent(office: PostOffice) -> None:
    desk = office.desk
    alice, bob = await desk.register(), await desk.register()
    async with receive_webhooks() as receiver:
        await office.set_webhook(bob, receiver)
        conversation_id = await desk.create_conversation(alice, bob)
        await desk.send(alice, conversation_id, "first stay")
        await desk.ask(bob, "DELETE", f"/v1/conversations/{conversation_id}/participants/{bob.user_id}")
        await desk.send(alice, conversation_id, "while bob is away")
        await desk.ask(alice, "POST", f"/v1/conversations/{conversation_id}/participants", {"user_id": bob.user_id})
        await desk.send(alice, conversation_id, "second stay")
        await office.carry(conversation_id)  # all of it only now: a backlog
        await office.until_idle()
        assert texts(receiver.messages()) == ["first stay", "second stay"]


async def test_a_conversation_is_asked_about_once_until_someone_comes_or_a_channel_changes(office: PostOffice) -> None:
    desk = office.desk
    alice, bob, carol = [await desk.register() for _ in range(3)]
    conversation_id = await desk.create_conversation(alice, bob)
    async with receive_webhooks() as receiver:
        await office.carry(conversation_id)
        await desk.send(alice, conversation_id, "nobody has a channel")
        await office.carry(conversation_id, after_seq=1)
        await office.set_webhook(bob, receiver)
        await desk.send(alice, conversation_id, "bob has")
        await office.carry(conversation_id, after_seq=2)
        await office.set_webhook(carol, receiver, "/carol")
        await desk.ask(alice, "POST", f"/v1/conversations/{conversation_id}/participants", {"user_id": carol.user_id})
        await desk.send(alice, conversation_id, "carol has")
        await office.carry(conversation_id, after_seq=3)
        await office.until_idle()
        assert texts(receiver.messages()) == ["bob has", "carol has"]
        assert texts(receiver.messages("/carol")) == ["carol has"]


async def test_what_is_routed_again_is_not_delivered_again(office: PostOffice) -> None:
    desk = office.desk
    alice, bob = await desk.register(), await desk.register()
    async with receive_webhooks() as receiver:
        await office.set_webhook(bob, receiver)
        conversation_id = await desk.create_conversation(alice, bob)
        for number in range(5):
            await desk.send(alice, conversation_id, str(number))
        for _ in range(3):
            await office.carry(conversation_id)
            await office.until_idle()
        assert texts(receiver.messages()) == list("01234")


async def test_a_message_that_cannot_be_read_is_set_aside_and_the_others_go_on(office: PostOffice) -> None:
    desk = office.desk
    alice, bob = await desk.register(), await desk.register()
    async with receive_webhooks() as receiver:
        await office.set_webhook(bob, receiver)
        conversation_id = await desk.create_conversation(alice, bob)
        await desk.send(alice, conversation_id, "fine")
        good = (await office.records_of(conversation_id))[-1]
        poison = good._replace(value=b"{}")
        nonsense = good._replace(key=b"nonsense")
        await office.router.route([poison, nonsense, good])
        await office.requests["webhook"].take([HandedOver("channel.webhook", good.key, b"?", [])])
        await office.hand_over()
        await office.until_idle()
        assert texts(receiver.messages()) == ["fine"]
    assert [record for record, _ in office.kept.dead] == [poison, HandedOver("channel.webhook", good.key, b"?", [])]


# --- Delivering ---


async def test_a_message_is_delivered_as_it_is_when_it_is_sent(office: PostOffice) -> None:
    desk = office.desk
    alice, bob = await desk.register(), await desk.register()
    async with receive_webhooks() as receiver:
        await office.set_webhook(bob, receiver)
        conversation_id = await desk.create_conversation(alice, bob)
        edited = await desk.send(alice, conversation_id, "tpyo")
        deleted = await desk.send(alice, conversation_id, "regretted")
        path = f"/v1/conversations/{conversation_id}/messages"
        body = {"body": {"type": "text", "text": "typo"}}
        assert (await desk.ask(alice, "PATCH", f"{path}/{edited}", body)).status_code == 200
        assert (await desk.ask(alice, "DELETE", f"{path}/{deleted}")).status_code == 200
        await office.carry(conversation_id)
        await office.until_idle()
        first, second = receiver.messages()
    assert (first["body"]["text"], first["edited"], first["deleted"]) == ("typo", True, False)
    assert (second["body"], second["deleted"]) == (None, True)
    assert b"regretted" not in receiver.taken[-1].body


async def test_a_target_that_fails_often_gets_everything_in_order_and_holds_nobody_back(office: PostOffice) -> None:
    desk = office.desk
    alice, bob, carol = [await desk.register() for _ in range(3)]
    dice = random.Random(1)

    async def respond(post: Post) -> int:
        if post.path == "/bob" and post.document["type"] == "messages":
            await asyncio.sleep(0.02)
            return 500 if dice.random() < 0.3 else 200
        return 200

    async with receive_webhooks(respond) as receiver:
        await office.set_webhook(bob, receiver, "/bob")
        await office.set_webhook(carol, receiver, "/carol")
        conversation_ids = [await desk.create_conversation(alice, bob, carol) for _ in range(12)]
        for number in range(40):
            for conversation_id in conversation_ids:
                await desk.send(alice, conversation_id, str(number))
        await office.carry(*conversation_ids)
        await office.until_idle()
        for path in ("/bob", "/carol"):
            by_conversation: dict[str, list[int]] = {}
            for message in receiver.messages(path):
                by_conversation.setdefault(message["conversation_id"], []).append(int(message["body"]["text"]))
            assert by_conversation == {conversation_id: list(range(40)) for conversation_id in conversation_ids}


async def test_a_worker_that_ends_in_the_middle_is_followed_by_one_that_goes_on(
    desk: Desk, redis_server: Server
) -> None:
    alice, bob = await desk.register(), await desk.register()
    conversation_id = ""
    held = asyncio.Event()

    async def respond(post: Post) -> int:
        if post.document["type"] == "messages" and post.document["data"]["messages"][-1]["seq"] > 101:
            await held.wait()
        return 200

    async with receive_webhooks(respond) as receiver:
        async with open_post_office(desk, redis_server) as office:
            await office.set_webhook(bob, receiver)
            conversation_id = await desk.create_conversation(alice, bob)
            for number in range(250):
                await desk.send(alice, conversation_id, str(number))
            await office.carry(conversation_id)
            await receiver.wait_for_messages(100)
            for task in [run.task for run in office.dispatchers["webhook"]._runs.values()]:
                assert task is not None
                task.cancel()  # as if it were killed
        held.set()
        async with open_post_office(desk, redis_server) as office:
            await office.until_idle()
        numbers = [int(text) for text in texts(receiver.messages())]
    assert sorted(set(numbers)) == list(range(250))
    assert numbers[:100] == list(range(100))
    assert numbers[-150:] == list(range(100, 250))


async def test_only_who_has_the_partition_delivers(office: PostOffice) -> None:
    desk = office.desk
    alice, bob = await desk.register(), await desk.register()
    async with receive_webhooks() as receiver:
        await office.set_webhook(bob, receiver)
        conversation_id = await desk.create_conversation(alice, bob)
        await desk.send(alice, conversation_id, "x")
        office.dispatchers["webhook"].take_over([PARTITION + 1])
        await office.carry(conversation_id)
        await asyncio.sleep(0.3)
        assert receiver.messages() == []
        office.dispatchers["webhook"].take_over([PARTITION])
        await office.until_idle()
        assert texts(receiver.messages()) == ["x"]


async def test_a_target_that_fails_for_too_long_is_disabled_and_says_why(desk: Desk, redis_server: Server) -> None:
    alice, bob = await desk.register(), await desk.register()

    async def respond(post: Post) -> int:
        return 503 if post.document["type"] == "messages" else 200

    async with (
        open_post_office(desk, redis_server, patience=Patience(0.1, 0.5)) as office,
        receive_webhooks(respond) as receiver,
    ):
        channel_id = await office.set_webhook(bob, receiver)
        conversation_id = await desk.create_conversation(alice, bob)
        await desk.send(alice, conversation_id, "x")
        await office.carry(conversation_id)
        async with asyncio.timeout(30):
            while (state := await state_of(desk, bob))["state"] != "disabled":
                assert state["state"] in ("active", "failing")
                await asyncio.sleep(0.05)
        assert state["last_error"] == "It answers 503."
        await desk.send(alice, conversation_id, "y")
        await office.router.route(await office.records_of(conversation_id))
        assert office.kept.of("channel.webhook") == []
    failures = [json.loads(record.value or b"") for record in office.kept.of(DELIVERY_EVENTS.name)]
    assert {(f["type"], f["channel_id"], f["reason"]) for f in failures} == {
        ("DeliveryFailed", channel_id, "It answers 503.")
    }
    audited = await desk.rows("SELECT detail FROM audit_log WHERE action = 'channel.disabled'")
    assert json.loads(audited[-1][0])["channel_id"] == channel_id


async def test_a_target_that_recovers_is_not_failing_any_more(office: PostOffice) -> None:
    desk = office.desk
    alice, bob = await desk.register(), await desk.register()
    is_up = False

    async def respond(post: Post) -> int:
        return 200 if is_up or post.document["type"] != "messages" else 500

    async with receive_webhooks(respond) as receiver:
        await office.set_webhook(bob, receiver)
        conversation_id = await desk.create_conversation(alice, bob)
        await desk.send(alice, conversation_id, "x")
        await office.carry(conversation_id)
        async with asyncio.timeout(30):
            while (await state_of(desk, bob))["state"] != "failing":
                await asyncio.sleep(0.05)
        is_up = True
        await office.until_idle()
        async with asyncio.timeout(30):
            while (state := await state_of(desk, bob))["state"] != "active":
                await asyncio.sleep(0.05)
    assert state["last_error"] is None


async def test_redirects_are_not_followed(office: PostOffice) -> None:
    desk = office.desk
    alice, bob = await desk.register(), await desk.register()

    async def respond(post: Post) -> int:
        return 302 if post.document["type"] == "messages" else 200

    async with receive_webhooks(respond) as receiver:
        await office.set_webhook(bob, receiver)
        conversation_id = await desk.create_conversation(alice, bob)
        await desk.send(alice, conversation_id, "x")
        await office.carry(conversation_id)
        async with asyncio.timeout(30):
            while (state := await state_of(desk, bob))["last_error"] is None:
                await asyncio.sleep(0.05)
        assert {post.path for post in receiver.came} == {"/hook"}
    assert state["last_error"] == "It answers 302, and redirects are not followed."
