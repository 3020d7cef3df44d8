"""The gateway in front of the real programs: every operation is reached through it, and nothing else is."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from contextlib import suppress

import httpx
import pytest
import websockets

from infra.caddy.__main__ import FILE
from infra.caddy.routes import INTERNAL, PROGRAMS, Operation, operations_of, render
from infra.local.postgres import OWNER
from infra.local.stack import Stack
from tests.chat_client import PASSWORD, ChatClient
from tests.faults.test_lost_slot import logged_in

ID = "0197b0a0-0000-7000-8000-000000000001"


@pytest.fixture
def url(stack: Stack) -> str:
    return f"http://127.0.0.1:{stack.ports.gateway}"


def direct_url(stack: Stack, program: str) -> str:
    return f"http://127.0.0.1:{getattr(stack.ports, program)}"


def documented(stack: Stack) -> list[Operation]:
    """What the programs say of themselves, now."""
    found = []
    for program in PROGRAMS:
        document = httpx.get(f"{direct_url(stack, program)}/openapi.json").raise_for_status().json()
        found += operations_of(program, document)
    return found


def test_the_routes_are_those_of_the_openapi_documents(stack: Stack) -> None:
    assert FILE.read_text("utf-8") == render(documented(stack)), "python -m infra.caddy makes them anew"


def test_every_operation_reaches_its_program_through_the_gateway(stack: Stack, url: str) -> None:
    operations = documented(stack)
    assert len(operations) > 30
    with httpx.Client(timeout=30) as http:
        for operation in operations:
            path = re.sub(r"\{[^}]+\}", ID, operation.path)
            direct = http.request(operation.method, direct_url(stack, operation.program) + path)
            through = http.request(operation.method, url + path)
            assert (through.status_code, through.content) == (direct.status_code, direct.content), operation
            assert through.status_code not in (404, 405), operation


def test_what_is_for_operators_and_what_nobody_describes_is_not_found(stack: Stack, url: str) -> None:
    for path in (*INTERNAL, "/docs", "/redoc", "/openapi.json", "/v1", "/admin", "/config/", "/v1/users/me/more"):
        answer = httpx.get(url + path)
        assert (answer.status_code, answer.json()["detail"]) == (404, "Nothing is served at this address."), path


async def test_two_users_chat_through_one_address(stack: Stack, url: str) -> None:
    chat = ChatClient(url, url)
    try:
        alice, bob = await chat.register("alice"), await chat.register("bob")
        conversation_id = await chat.create_conversation(alice, bob)
        async with chat.stream(bob) as events:
            sent = await chat.send(alice, conversation_id, "through the gateway")
            async with asyncio.timeout(30):
                while (event := await anext(events)).event != "MessageSent":
                    pass
        assert sent["message_id"] in event.data
    finally:
        await chat.close()


def test_the_audit_log_has_the_address_that_called_not_the_one_that_was_claimed(stack: Stack, url: str) -> None:
    claimed = {"X-Forwarded-For": "203.0.113.9", "Forwarded": "for=203.0.113.9", "X-Real-IP": "203.0.113.9"}
    user = {"username": f"forger-{uuid.uuid4().hex[:12]}", "password": PASSWORD}
    with httpx.Client(transport=httpx.HTTPTransport(local_address="127.0.0.2"), timeout=30) as http:
        registered = http.post(f"{url}/v1/users", json=user, headers=claimed)
    assert registered.status_code == 201

    with logged_in(stack, OWNER, stack.secrets.database_owner) as connection:
        [(detail,)] = connection.execute(
            "SELECT detail FROM audit_log WHERE action = 'user.created' AND actor_id = %s",
            [registered.json()["user_id"]],
        ).fetchall()
    assert json.loads(detail)["address"] == "127.0.0.2"


@pytest.mark.parametrize("transport", ["websocket", "sse"])
async def test_delivery_s_goodbye_passes_through_the_gateway(stack: Stack, url: str, transport: str) -> None:
    chat = ChatClient(url, url)
    user = await chat.register("alice")
    heard: list[str] = []

    async def listen_by_sse() -> None:
        async with chat.stream(user) as events:
            opened.set()
            heard.extend([event.event async for event in events])

    async def listen_by_websocket() -> None:
        protocol = websockets.Subprotocol("chat4all.v1")
        async with websockets.connect(f"ws{url.removeprefix('http')}/v1/ws", subprotocols=[protocol]) as socket:
            await socket.send(json.dumps({"type": "authenticate", "token": user.token}))
            with suppress(websockets.ConnectionClosed):
                while True:
                    heard.extend(json.loads(line)["type"] for line in str(await socket.recv()).splitlines())
                    opened.set()

    opened = asyncio.Event()
    listening = asyncio.create_task(listen_by_sse() if transport == "sse" else listen_by_websocket())
    async with asyncio.timeout(60):
        await opened.wait()
        await asyncio.to_thread(stack.stop_program, "delivery")
        await listening
    await asyncio.to_thread(stack.start_program, "delivery")
    await chat.close()

    assert heard[-1] == "goodbye"
