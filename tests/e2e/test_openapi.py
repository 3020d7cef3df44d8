"""Every operation of the API does what OpenAPI says: made-up requests against the real stack."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from infra.local.stack import Stack
from schemas.channels import CHANNELS
from tests.chat_client import ChatClient, User

EXAMPLES = int(os.environ.get("CHAT4ALL_EXAMPLES", "12"))
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


def operations(stack: Stack) -> list[Any]:
    schema: Any = schemathesis.openapi.from_url(f"http://127.0.0.1:{stack.ports.ingest_api}/openapi.json")
    return [result.ok() for result in schema.get_all_operations()]


async def set_up(client: ChatClient) -> tuple[User, dict[str, str]]:
    """A user, and ids of theirs that made-up requests may name."""
    alice, bob = await client.register("alice"), await client.register("bob")
    conversation_id = await client.create_conversation(alice, bob)
    sent = await client.send(alice, conversation_id, "x")
    for channel, setting in {"webhook": {"url": "https://example.org/"}, "email": {"address": "a@example.org"}}.items():
        path = f"{client.ingest_url}/v1/me/channels/{channel}"
        (await client.http.put(path, json=setting, headers=alice.headers)).raise_for_status()
    return alice, {"conversation_id": conversation_id, "message_id": sent["message_id"], "user_id": bob.user_id}


def name_real_ids(case: Any, ids: dict[str, str]) -> None:
    """Those of the ids that the request names somewhere take the place of what was made up."""
    own = {name: value for name, value in ids.items() if f"{{{name}}}" in case.operation.path}
    case.path_parameters = {**(case.path_parameters or {}), **own}
    if isinstance(case.body, dict) and "user_id" in case.body and "user_id" in ids:
        case.body = {**case.body, "user_id": ids["user_id"]}


def test_no_request_is_answered_by_what_openapi_does_not_say(stack: Stack) -> None:
    client = ChatClient(f"http://127.0.0.1:{stack.ports.ingest_api}", f"http://127.0.0.1:{stack.ports.delivery}")

    async def prepare() -> tuple[User, dict[str, str]]:
        try:
            return await set_up(client)
        finally:
            await client.close()

    user, ids = asyncio.run(prepare())
    statuses: dict[str, set[int]] = {}
    for operation in operations(stack):
        for named in ({}, ids) if "{" in operation.path else ({},):
            run_operation(operation, user, named, statuses)
    assert len(statuses) >= 19, "operations are missing"
    accepted = {label for label, seen in statuses.items() if seen & {200, 201, 204}}
    never = set(statuses) - accepted
    codes = {f"POST /v1/me/channels/{channel}/verification" for channel in CHANNELS}  # nobody guesses one
    removed = {"POST /v1/me/channels/webhook/secret"}  # its turn comes when the webhook has been removed
    assert never <= {"POST /oauth/token", "GET /v1/audit"} | codes | removed, f"no request was ever right: {never}"


def run_operation(operation: Any, user: User, ids: dict[str, str], statuses: dict[str, set[int]]) -> None:
    """Sends made-up requests, wrong ones among them, and compares each answer with what is documented."""
    is_open = operation.path.startswith("/oauth/")  # these read the header as a client's credentials

    @given(case=operation.as_strategy())
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def check(case: Any) -> None:
        name_real_ids(case, ids)
        case.headers = {**(case.headers or {}), **({} if is_open else user.headers)}
        response = case.call()
        statuses.setdefault(operation.label, set()).add(response.status_code)
        case.validate_response(response, checks=CHECKS)

    check()


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b'{"a": NaN}', b"\xff\xfe", b'{"body": "\\ud800"}', b"1" * 9000]
)
async def test_bodies_that_are_no_json_objects_are_malformed(stack: Stack, client: ChatClient, content: bytes) -> None:
    user, ids = await set_up(client)
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.post(
            f"{client.ingest_url}/v1/conversations/{ids['conversation_id']}/messages",
            content=content,
            headers={**user.headers, "content-type": "application/json"},
        )
    assert answer.status_code == 422, answer.text
    assert json.loads(answer.content)["type"].endswith(":malformed-request")
