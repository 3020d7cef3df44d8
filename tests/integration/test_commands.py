"""The ingest API's commands on a real PostgreSQL: what they write, who may give them, and what a retry finds."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from ingest_api.limits.quotas import Quota
from schemas.events import MessageDeleted, MessageEdited, ParticipantJoined, ParticipantLeft, TitleChanged, parse_event
from tests.chat_client import User
from tests.integration.desk import API, Desk, open_desk
from tests.integration.servers import Server, login, start_postgres

OTHER_TEXT = {"body": {"type": "text", "text": "other"}}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with start_postgres() as own:
        yield own


@pytest.fixture
async def desk(server: Server, tmp_path: Path) -> AsyncIterator[Desk]:
    async with open_desk(server, tmp_path) as own:
        yield own


def kind(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, str(answer.json().get("type", "")).rpartition(":")[2]


def place(answer: httpx.Response) -> tuple[int, int, bool]:
    """Status, seq, and whether the answer says that it is a replay."""
    return answer.status_code, answer.json()["seq"], answer.headers.get("idempotency-replayed") == "true"


async def test_a_title_is_changed_and_removed(desk: Desk) -> None:
    alice = await desk.register()
    conversation_id = await desk.create_conversation(alice)
    path = f"/v1/conversations/{conversation_id}"
    for seq, title in enumerate(["another", None], start=2):
        assert place(await desk.ask(alice, "PATCH", path, {"title": title})) == (200, seq, False)
        held = await desk.rows("SELECT title FROM conversations WHERE conversation_id = %s", conversation_id)
        event = parse_event(await desk.payload(conversation_id, seq))
        assert isinstance(event, TitleChanged)
        assert (held, event.title) == ([(title,)], title)


async def test_a_participant_joins_leaves_and_comes_back(desk: Desk) -> None:
    alice, bob = await desk.register(), await desk.register()
    conversation_id = await desk.create_conversation(alice)
    path = f"/v1/conversations/{conversation_id}/participants"
    of_bob = f"{path}/{bob.user_id}"
    assert place(await desk.ask(alice, "POST", path, {"user_id": bob.user_id})) == (201, 2, False)
    assert place(await desk.ask(alice, "POST", path, {"user_id": bob.user_id})) == (200, 2, True)
    await desk.send(bob, conversation_id)
    assert place(await desk.ask(bob, "DELETE", of_bob)) == (200, 4, False)
    assert place(await desk.ask(bob, "DELETE", of_bob)) == (200, 4, True)
    assert place(await desk.ask(alice, "DELETE", of_bob)) == (200, 4, True)
    with pytest.raises(httpx.HTTPStatusError):
        await desk.send(bob, conversation_id)
    back = {"user_id": bob.user_id, "role": "admin"}
    assert place(await desk.ask(alice, "POST", path, back)) == (201, 5, False)
    await desk.send(bob, conversation_id)
    assert await desk.rows(
        "SELECT role, joined_seq, left_seq FROM participants WHERE conversation_id = %s AND user_id = %s",
        conversation_id,
        bob.user_id,
    ) == [("admin", 5, None)]
    joined, left = [parse_event(await desk.payload(conversation_id, seq)) for seq in (2, 4)]
    assert isinstance(joined, ParticipantJoined)
    assert isinstance(left, ParticipantLeft)
    assert (str(joined.user_id), joined.role, str(joined.actor_id)) == (bob.user_id, "member", alice.user_id)
    assert (str(left.user_id), left.successor_id, str(left.actor_id)) == (bob.user_id, None, bob.user_id)
    assert await desk.rows("SELECT count(*) FROM outbox") == [(0,)]


async def test_the_longest_standing_participant_succeeds_the_last_admin(desk: Desk) -> None:
    alice, bob, carol = [await desk.register() for _ in range(3)]
    conversation_id = await desk.create_conversation(alice)
    path = f"/v1/conversations/{conversation_id}/participants"
    for user in (carol, bob):
        (await desk.ask(alice, "POST", path, {"user_id": user.user_id})).raise_for_status()
    key = str(uuid.uuid4())
    for is_replay in (False, True):
        left = await desk.ask(alice, "DELETE", f"{path}/{alice.user_id}", idempotency_key=key)
        assert place(left) == (200, 4, is_replay)
    event = parse_event(await desk.payload(conversation_id, 4))
    assert isinstance(event, ParticipantLeft)
    assert str(event.successor_id) == carol.user_id
    assert place(await desk.ask(carol, "DELETE", f"{path}/{bob.user_id}")) == (200, 5, False)
    assert place(await desk.ask(carol, "DELETE", f"{path}/{carol.user_id}")) == (200, 6, False)
    last = parse_event(await desk.payload(conversation_id, 6))
    assert isinstance(last, ParticipantLeft)
    assert last.successor_id is None


async def test_two_last_admins_who_leave_at_once_leave_an_admin_behind(desk: Desk) -> None:
    for _ in range(10):
        alice, bob, carol = [await desk.register() for _ in range(3)]
        conversation_id = await desk.create_conversation(alice, carol)
        path = f"/v1/conversations/{conversation_id}/participants"
        (await desk.ask(alice, "POST", path, {"user_id": bob.user_id, "role": "admin"})).raise_for_status()
        answers = await asyncio.gather(*(desk.ask(u, "DELETE", f"{path}/{u.user_id}") for u in (alice, bob)))
        assert sorted(answer.json()["seq"] for answer in answers) == [3, 4]
        assert await desk.rows(
            "SELECT user_id::text FROM participants WHERE conversation_id = %s AND left_seq IS NULL AND role = 'admin'",
            conversation_id,
        ) == [(carol.user_id,)]


async def test_a_message_is_edited_and_deleted(desk: Desk) -> None:
    alice = await desk.register()
    conversation_id = await desk.create_conversation(alice)
    message_id = await desk.send(alice, conversation_id)
    path = f"/v1/conversations/{conversation_id}/messages/{message_id}"
    assert place(await desk.ask(alice, "PATCH", path, OTHER_TEXT)) == (200, 3, False)
    assert place(await desk.ask(alice, "DELETE", path)) == (200, 4, False)
    assert place(await desk.ask(alice, "DELETE", path)) == (200, 4, True)
    assert kind(await desk.ask(alice, "PATCH", path, OTHER_TEXT)) == (409, "message-deleted")
    edited, deleted = [parse_event(await desk.payload(conversation_id, seq)) for seq in (3, 4)]
    assert isinstance(edited, MessageEdited)
    assert isinstance(deleted, MessageDeleted)
    assert (str(edited.message_id), edited.body.model_dump()) == (message_id, OTHER_TEXT["body"])
    assert str(deleted.message_id) == message_id
    assert [row[1] for row in await desk.entries(conversation_id)] == [
        "ConversationCreated",
        "MessageSent",
        "MessageEdited",
        "MessageDeleted",
    ]


async def test_only_a_message_of_this_conversation_can_be_changed(desk: Desk) -> None:
    alice = await desk.register()
    one, other = await desk.create_conversation(alice), await desk.create_conversation(alice)
    elsewhere = await desk.send(alice, other)
    for message_id in (elsewhere, str(uuid.uuid4()), one):
        path = f"/v1/conversations/{one}/messages/{message_id}"
        assert kind(await desk.ask(alice, "PATCH", path, OTHER_TEXT)) == (404, "message-not-found")
        assert kind(await desk.ask(alice, "DELETE", path)) == (404, "message-not-found")
    assert await desk.entries(one) == [(1, "ConversationCreated")]


ADMIN, MEMBER, FORMER, STRANGER = range(4)
FORBIDDEN, HIDDEN = (403, "not-allowed"), (404, "conversation-not-found")
MATRIX: dict[str, dict[int, Any]] = {
    "change title": {ADMIN: 200, MEMBER: FORBIDDEN, FORMER: HIDDEN, STRANGER: HIDDEN},
    "add participant": {ADMIN: 201, MEMBER: FORBIDDEN, FORMER: HIDDEN, STRANGER: HIDDEN},
    "remove another": {ADMIN: 200, MEMBER: FORBIDDEN, FORMER: HIDDEN, STRANGER: HIDDEN},
    "leave": {ADMIN: 200, MEMBER: 200, FORMER: 200, STRANGER: HIDDEN},
    "send": {ADMIN: 201, MEMBER: 201, FORMER: HIDDEN, STRANGER: HIDDEN},
    "edit another's": {ADMIN: 200, MEMBER: FORBIDDEN, FORMER: HIDDEN, STRANGER: HIDDEN},
    "delete another's": {ADMIN: 200, MEMBER: FORBIDDEN, FORMER: HIDDEN, STRANGER: HIDDEN},
    "edit own": {ADMIN: 200, MEMBER: 200, FORMER: HIDDEN},
    "delete own": {ADMIN: 200, MEMBER: 200, FORMER: HIDDEN},
    "receipt": {ADMIN: 200, MEMBER: 200, FORMER: HIDDEN, STRANGER: HIDDEN},
}


async def request_of(desk: Desk, command: str, actor: User, target: User, path: str, messages: dict[str, str]) -> Any:
    newcomer = (await desk.register()).user_id
    method, address, body = {
        "change title": ("PATCH", path, {"title": "x"}),
        "add participant": ("POST", f"{path}/participants", {"user_id": newcomer}),
        "remove another": ("DELETE", f"{path}/participants/{target.user_id}", None),
        "leave": ("DELETE", f"{path}/participants/{actor.user_id}", None),
        "send": ("POST", f"{path}/messages", OTHER_TEXT),
        "edit another's": ("PATCH", f"{path}/messages/{messages[target.user_id]}", OTHER_TEXT),
        "delete another's": ("DELETE", f"{path}/messages/{messages[target.user_id]}", None),
        "edit own": ("PATCH", f"{path}/messages/{messages.get(actor.user_id)}", OTHER_TEXT),
        "delete own": ("DELETE", f"{path}/messages/{messages.get(actor.user_id)}", None),
        "receipt": ("PUT", f"{path}/receipt", {"read_seq": 1}),
    }[command]
    return await desk.ask(actor, method, address, body)


@pytest.mark.parametrize("command", MATRIX)
async def test_everyone_may_do_what_their_role_allows(desk: Desk, command: str) -> None:
    for role, expected in MATRIX[command].items():
        users = [await desk.register() for _ in range(4)]
        target = await desk.register()
        conversation_id = await desk.create_conversation(*users[:STRANGER], target)
        path = f"/v1/conversations/{conversation_id}"
        messages = {u.user_id: await desk.send(u, conversation_id) for u in (*users[:STRANGER], target)}
        (await desk.ask(users[FORMER], "DELETE", f"{path}/participants/{users[FORMER].user_id}")).raise_for_status()
        before = await desk.entries(conversation_id)
        answer = await request_of(desk, command, users[role], target, path, messages)
        if isinstance(expected, int):
            assert answer.status_code == expected, (command, role, answer.text)
        else:
            assert kind(answer) == expected, (command, role, answer.text)
            assert await desk.entries(conversation_id) == before
            nowhere = f"/v1/conversations/{uuid.uuid4()}"
            if expected == HIDDEN:  # the same answer, to the byte, as for a conversation that does not exist
                hidden = await request_of(desk, command, users[role], target, nowhere, messages)
                assert (hidden.status_code, hidden.content) == (answer.status_code, answer.content)


async def test_a_command_under_one_key_happens_once_and_the_key_is_taken_for_others(desk: Desk) -> None:
    alice, bob = await desk.register(), await desk.register()
    conversation_id, other = await desk.create_conversation(alice), await desk.create_conversation(alice)
    message_id = await desk.send(alice, conversation_id)
    path = f"/v1/conversations/{conversation_id}"
    commands: list[tuple[str, str, Any]] = [
        ("PATCH", path, {"title": "once"}),
        ("POST", f"{path}/participants", {"user_id": bob.user_id}),
        ("DELETE", f"{path}/participants/{bob.user_id}", None),
        ("PATCH", f"{path}/messages/{message_id}", OTHER_TEXT),
        ("DELETE", f"{path}/messages/{message_id}", None),
    ]
    keys = [str(uuid.uuid4()) for _ in commands]
    places = []
    for key, (method, address, body) in zip(keys, commands, strict=True):
        places.append(place(await desk.ask(alice, method, address, body, idempotency_key=key)))
    assert [(seq, is_replay) for _, seq, is_replay in places] == [(seq, False) for seq in range(3, 8)]
    for key, (method, address, body), (_, seq, _) in zip(keys, commands, places, strict=True):
        assert place(await desk.ask(alice, method, address, body, idempotency_key=key)) == (200, seq, True)
        for elsewhere in (f"/v1/conversations/{other}", path):
            taken = await desk.ask(alice, "PATCH", elsewhere, {"title": "twice"}, idempotency_key=key)
            assert kind(taken) == (409, "id-taken")
    assert await desk.rows("SELECT left_seq FROM participants WHERE user_id = %s", bob.user_id) == [(5,)]
    assert len(await desk.entries(conversation_id)) == 7


async def test_one_key_at_once_in_two_conversations_is_one_change(desk: Desk) -> None:
    alice = await desk.register()
    ids = [await desk.create_conversation(alice) for _ in range(2)]
    for _ in range(10):
        key = str(uuid.uuid4())
        answers = await asyncio.gather(
            *(
                desk.ask(alice, "PATCH", f"/v1/conversations/{ids[n % 2]}", {"title": "x"}, idempotency_key=key)
                for n in range(6)
            )
        )
        assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 409, 409, 409]
        assert len({answer.json()["seq"] for answer in answers if answer.status_code == 200}) == 1


async def test_a_malformed_key_and_malformed_fields_are_named(desk: Desk) -> None:
    alice = await desk.register()
    conversation_id = await desk.create_conversation(alice)
    path = f"/v1/conversations/{conversation_id}"
    file = {"type": "file", "url": "https://a.test/b", "name": "b", "size": 1, "sha256": "0" * 64}
    cases: list[tuple[str, str, Any, str]] = [
        ("PATCH", path, {}, "body.title"),
        ("PATCH", path, {"title": "a\0"}, "body.title"),
        ("PATCH", path, {"title": "x" * 201}, "body.title"),
        ("POST", f"{path}/participants", {"user_id": "x"}, "body.user_id"),
        ("POST", f"{path}/participants", {"user_id": alice.user_id, "role": "owner"}, "body.role"),
        ("PUT", f"{path}/receipt", {"read_seq": -1}, "body.read_seq"),
        ("PATCH", "/v1/users/me", {"display_name": ""}, "body.display_name"),
        ("POST", f"{path}/messages", {"body": {"type": "text", "text": "x" * 16_001}}, "body.body.text"),
        ("POST", f"{path}/messages", {"body": {"type": "video"}}, "body.body"),
        ("POST", f"{path}/messages", {"body": file | {"url": "ftp://a.test/b"}}, "body.body.url"),
        ("POST", f"{path}/messages", {"body": file | {"name": "a\0"}}, "body.body.name"),
        ("POST", "/v1/messages/batch", {"messages": []}, "body.messages"),
    ]
    for method, address, body, field in cases:
        answer = await desk.ask(alice, method, address, body)
        assert kind(answer) == (422, "malformed-request"), (body, answer.text)
        assert [error["path"] for error in answer.json()["errors"]] == [field], body
    answer = await desk.ask(alice, "PATCH", path, {"title": "x"}, idempotency_key="not a uuid")
    assert [error["path"] for error in answer.json()["errors"]] == ["header.Idempotency-Key"]
    unknown = await desk.ask(alice, "POST", f"{path}/participants", {"user_id": str(uuid.uuid4())})
    assert kind(unknown) == (422, "unknown-participants")
    never = await desk.ask(alice, "DELETE", f"{path}/participants/{uuid.uuid4()}")
    assert kind(never) == (404, "participant-not-found")
    assert await desk.entries(conversation_id) == [(1, "ConversationCreated")]


async def test_a_batch_is_answered_item_by_item_in_its_order(desk: Desk) -> None:
    alice, bob = await desk.register(), await desk.register()
    one, other = await desk.create_conversation(alice), await desk.create_conversation(alice)
    hidden = await desk.create_conversation(bob)
    first = str(uuid.uuid4())

    def item(conversation_id: str, text: str, **fields: Any) -> dict[str, Any]:
        return {"conversation_id": conversation_id, "body": {"type": "text", "text": text}, **fields}

    messages = [
        item(one, "1", message_id=first),
        item(other, "1"),
        item(hidden, "x"),
        item(one, "2", reply_to=first),
        item(one, ""),
        item(one, "1", message_id=first),
        item(one, "not 1", message_id=first),
        item(other, "x", reply_to=first),
        item(one, "3"),
        {"conversation_id": one},
    ]
    answer = await desk.ask(alice, "POST", "/v1/messages/batch", {"messages": messages})
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [(r["status"], r.get("seq") or r["type"].rpartition(":")[2]) for r in results] == [
        (201, 2),
        (201, 2),
        (404, "conversation-not-found"),
        (201, 3),
        (422, "malformed-request"),
        (200, 2),
        (409, "id-taken"),
        (422, "unknown-reply"),
        (201, 4),
        (422, "malformed-request"),
    ]
    assert [error["path"] for error in results[4]["errors"]] == ["body.messages.4.body.text"]
    assert [error["path"] for error in results[9]["errors"]] == ["body.messages.9.body"]
    texts = [json.loads(await desk.payload(one, seq))["body"]["text"] for seq in (2, 3, 4)]
    assert texts == ["1", "2", "3"]


async def test_batches_at_once_keep_their_order(desk: Desk) -> None:
    alice = await desk.register()
    ids = [await desk.create_conversation(alice) for _ in range(3)]

    async def send(batch: int) -> list[dict[str, Any]]:
        messages = [
            {"conversation_id": ids[n % 3], "body": {"type": "text", "text": f"{batch}.{n}"}} for n in range(100)
        ]
        answer = await desk.ask(alice, "POST", "/v1/messages/batch", {"messages": messages})
        return list(answer.json()["results"])

    for results in await asyncio.gather(*(send(batch) for batch in range(10))):
        assert {result["status"] for result in results} == {201}
        for offset in range(3):
            seqs = [result["seq"] for result in results[offset::3]]
            assert seqs == sorted(seqs)
    for conversation_id in ids:
        seqs = [row[0] for row in await desk.entries(conversation_id)]
        assert seqs == list(range(1, len(seqs) + 1))


async def test_the_own_profile_is_read_and_changed(desk: Desk) -> None:
    alice = await desk.register()
    profile = (await desk.ask(alice, "GET", "/v1/users/me")).json()
    assert (profile["user_id"], profile["display_name"]) == (alice.user_id, "x")
    changed = await desk.ask(alice, "PATCH", "/v1/users/me", {"display_name": "Alice"})
    assert (changed.status_code, changed.json()["display_name"]) == (200, "Alice")
    assert (await desk.ask(alice, "PATCH", "/v1/users/me", {})).json() == changed.json()
    assert (await desk.ask(alice, "GET", "/v1/users/me")).json() == changed.json()
    unnamed = await desk.ask(alice, "PATCH", "/v1/users/me", {"display_name": None})
    assert unnamed.json()["display_name"] == alice.username


async def test_users_are_found_by_their_whole_name_or_id_alone(desk: Desk) -> None:
    alice, bob = await desk.register(), await desk.register()
    registered = await desk.http.post("/v1/users", json={"username": "Carol", "password": "correct horse battery"})
    carol = registered.json()

    async def find(**asked: Any) -> httpx.Response:
        return await desk.http.get("/v1/users", params=asked, headers=alice.headers)

    assert (await find(username=["carol", "nobody"])).json() == {"users": [carol]}
    assert (await find(username="CAROL", user_id=[carol["user_id"], str(uuid.uuid4())])).json() == {"users": [carol]}
    both = await find(user_id=[bob.user_id, carol["user_id"]])
    assert [user["user_id"] for user in both.json()["users"]] == [carol["user_id"], bob.user_id]
    assert (await find(username="car")).json() == (await find()).json() == {"users": []}
    assert kind(await find(username="%")) == kind(await find(user_id="x")) == (422, "malformed-request")
    assert kind(await find(user_id=[bob.user_id] * 101)) == (422, "malformed-request")


async def test_whoever_looks_up_too_many_users_has_to_wait(server: Server, tmp_path: Path) -> None:
    async with open_desk(server, tmp_path, redis_host="", limit_user_lookups=Quota(3, 3600)) as desk:
        alice, bob = await desk.register(), await desk.register()
        two = "/v1/users?username=anybody&username=somebody"
        assert (await desk.ask(alice, "GET", two)).status_code == 200
        refused = await desk.ask(alice, "GET", two)
        assert (*kind(refused), refused.json()["limit"]) == (429, "rate-limited", "user-lookups")
        assert (await desk.ask(bob, "GET", two)).status_code == 200


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE participants SET user_id = user_id",
        "DELETE FROM participants",
        "UPDATE conversations SET created_by = created_by",
        "UPDATE users SET username = 'x'",
        "UPDATE receipts SET user_id = user_id",
        "DELETE FROM receipts",
        "UPDATE outbox SET payload = ''",
    ],
)
async def test_the_apis_role_may_change_no_more_than_its_commands_do(desk: Desk, statement: str) -> None:
    async with await psycopg.AsyncConnection.connect(**login(desk.server, API)) as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await connection.execute(statement.encode())
