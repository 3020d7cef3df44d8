"""Who may do what: every protected route of the API, called by everybody."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from ingest_api.app import PUBLIC_ROUTES
from tests.chat_client import User
from tests.integration.desk import Desk, open_desk
from tests.integration.servers import Server, start_postgres

CALLERS = ("owner", "member", "former", "stranger", "auditor", "expired", "anonymous")
TEXT = {"body": {"type": "text", "text": "x"}}
USERS_ONLY = "200 200 200 200 403 401 401"
NOT_SET = "404 404 404 404 403 401 401"

# method, path, body, status for each of CALLERS. {other}: another member, {stranger}: somebody not in it.
MATRIX: dict[tuple[str, str], tuple[Any, str]] = {
    ("POST", "/v1/conversations"): ({"participants": []}, "201 201 201 201 403 401 401"),
    ("PATCH", "/v1/conversations/{conversation_id}"): ({"title": "x"}, "200 403 404 404 403 401 401"),
    ("POST", "/v1/conversations/{conversation_id}/participants"): (
        {"user_id": "{newcomer}"},
        "201 403 404 404 403 401 401",
    ),
    ("DELETE", "/v1/conversations/{conversation_id}/participants/{user_id}"): (None, "200 403 404 404 403 401 401"),
    ("POST", "/v1/conversations/{conversation_id}/messages"): (TEXT, "201 201 404 404 403 401 401"),
    ("PATCH", "/v1/conversations/{conversation_id}/messages/{message_id}"): (TEXT, "200 403 404 404 403 401 401"),
    ("DELETE", "/v1/conversations/{conversation_id}/messages/{message_id}"): (None, "200 403 404 404 403 401 401"),
    ("PUT", "/v1/conversations/{conversation_id}/receipt"): ({"read_seq": 1}, "200 200 404 404 403 401 401"),
    ("POST", "/v1/messages/batch"): (
        {"messages": [{"conversation_id": "{conversation_id}", **TEXT}]},
        "201 201 404 404 403 401 401",  # of the one item, where the batch is taken
    ),
    ("GET", "/v1/users/me"): (None, USERS_ONLY),
    ("GET", "/v1/users"): (None, USERS_ONLY),
    ("PATCH", "/v1/users/me"): ({"display_name": "x"}, USERS_ONLY),
    ("GET", "/v1/me/channels"): (None, USERS_ONLY),
    ("PUT", "/v1/me/channels/webhook"): ({"url": "https://example.org/hook"}, USERS_ONLY),
    ("GET", "/v1/me/channels/webhook"): (None, NOT_SET),
    ("DELETE", "/v1/me/channels/webhook"): (None, USERS_ONLY),
    ("POST", "/v1/me/channels/webhook/verification"): ({"code": "A" * 10}, NOT_SET),
    ("POST", "/v1/me/channels/webhook/secret"): (None, NOT_SET),
    ("PUT", "/v1/me/channels/email"): ({"address": "alice@example.org"}, USERS_ONLY),
    ("GET", "/v1/me/channels/email"): (None, NOT_SET),
    ("DELETE", "/v1/me/channels/email"): (None, USERS_ONLY),
    ("POST", "/v1/me/channels/email/verification"): ({"code": "A" * 10}, NOT_SET),
    ("GET", "/v1/audit"): (None, "403 403 403 403 200 401 401"),
}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with start_postgres() as own:
        yield own


@pytest.fixture
async def desk(server: Server, tmp_path: Path) -> AsyncIterator[Desk]:
    async with open_desk(server, tmp_path) as own:
        yield own


class Scene(NamedTuple):
    """A conversation and everybody who may call; the owner sent the message."""

    callers: dict[str, User | None]
    ids: dict[str, str]


async def set_up(desk: Desk) -> Scene:
    owner, member, former, stranger, other, newcomer = [await desk.register() for _ in range(6)]
    conversation_id = await desk.create_conversation(owner, member, former, other)
    message_id = await desk.send(owner, conversation_id)
    left = await desk.ask(former, "DELETE", f"/v1/conversations/{conversation_id}/participants/{former.user_id}")
    assert left.status_code == 200
    callers = {
        "owner": owner,
        "member": member,
        "former": former,
        "stranger": stranger,
        "auditor": desk.client("auditor", "audit:read"),
        "expired": desk.with_expired_token(owner),
        "anonymous": None,
    }
    ids = {
        "conversation_id": conversation_id,
        "message_id": message_id,
        "user_id": other.user_id,
        "newcomer": newcomer.user_id,
    }
    return Scene(callers, ids)


def fill(template: Any, ids: dict[str, str]) -> Any:
    """The template with ids for names in braces."""
    if isinstance(template, str):
        for name, value in ids.items():
            template = template.replace(f"{{{name}}}", value)
        return template
    if isinstance(template, list):
        return [fill(item, ids) for item in template]
    return {name: fill(value, ids) for name, value in template.items()} if isinstance(template, dict) else template


def status_of(answer: httpx.Response) -> int:
    """Of a batch: that of its one item."""
    results = answer.json().get("results")
    return int(results[0]["status"]) if results else answer.status_code


def test_the_matrix_has_every_protected_route(desk: Desk) -> None:
    routes = {(method.upper(), path) for path, methods in desk.app.openapi()["paths"].items() for method in methods}
    assert routes - PUBLIC_ROUTES == set(MATRIX)


@pytest.mark.parametrize("operation", MATRIX, ids=" ".join)
async def test_everybody_gets_what_is_theirs(desk: Desk, operation: tuple[str, str]) -> None:
    (method, path), (body, expected) = operation, MATRIX[operation]
    found = []
    for caller in CALLERS:
        scene = await set_up(desk)  # a scene for each: what one may do must not change what the next one finds
        user = scene.callers[caller]
        answer = await desk.http.request(
            method, fill(path, scene.ids), json=fill(body, scene.ids), headers=user.headers if user else {}
        )
        found.append(status_of(answer))
        if answer.status_code == 401:
            assert answer.headers["www-authenticate"].startswith("Bearer")
    assert found == [int(status) for status in expected.split()]


async def test_the_sender_may_change_a_message_and_leave_without_being_admin(desk: Desk) -> None:
    scene = await set_up(desk)
    member = scene.callers["member"]
    assert member is not None
    conversation = f"/v1/conversations/{scene.ids['conversation_id']}"
    own = await desk.send(member, scene.ids["conversation_id"])
    assert (await desk.ask(member, "PATCH", f"{conversation}/messages/{own}", TEXT)).status_code == 200
    assert (await desk.ask(member, "DELETE", f"{conversation}/messages/{own}")).status_code == 200
    assert (await desk.ask(member, "DELETE", f"{conversation}/participants/{member.user_id}")).status_code == 200
