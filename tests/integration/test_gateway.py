"""The gateway by itself: what it refuses, what it says of who called, and what never reaches a program."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from tests.caddy import Gateway, start_caddy
from tests.integration.servers import free_port
from tests.upstream import Upstream, start_upstream

ID = "0197b0a0-0000-7000-8000-000000000001"
SEND = f"/v1/conversations/{ID}/messages"
HOST = b"Host: chat.test\r\n"
SHORTER = {"read_header 10s": "read_header 1s", "read_body 30s": "read_body 2s", "idle 2m": "idle 1s"}
"""The gateway's timeouts, so that tests outlast them."""


@dataclass(frozen=True, slots=True)
class World:
    """A gateway, and two upstreams in the places of the programs."""

    gateway: Gateway
    api: Upstream
    delivery: Upstream

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.gateway.port}"

    def say(self, data: bytes, *, seconds: float = 10) -> bytes:
        """What comes back for these bytes until the gateway closes the connection, or falls silent."""
        with socket.create_connection(("127.0.0.1", self.gateway.port), seconds) as connection:
            connection.sendall(data)
            connection.settimeout(0.5)
            answer = b""
            try:
                while part := connection.recv(65_536):
                    answer += part
            except TimeoutError:
                pass
            return answer

    def seen(self) -> list[tuple[str, str]]:
        """Method and target of what has reached a program."""
        return [(request.method, request.target) for request in (*self.api.requests, *self.delivery.requests)]


@pytest.fixture(scope="module")
def running() -> Iterator[World]:
    port = free_port()
    with start_upstream("ingest_api") as api, start_upstream("delivery") as delivery:
        variables = {
            "CHAT4ALL_GATEWAY_PORT": str(port),
            "CHAT4ALL_INGEST_API_UPSTREAM": f"127.0.0.1:{api.port}",
            "CHAT4ALL_DELIVERY_UPSTREAM": f"127.0.0.1:{delivery.port}",
        }
        with start_caddy(port, variables, changes=SHORTER) as gateway:
            yield World(gateway, api, delivery)


@pytest.fixture
def world(running: World) -> World:
    for upstream in (running.api, running.delivery):
        upstream.requests.clear()
        upstream.unread.clear()
    return running


def statuses(answer: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"^HTTP/1\.[01] (\d{3})", answer, re.MULTILINE)]


def test_a_request_goes_to_the_program_that_answers_it(world: World) -> None:
    assert httpx.post(world.url + SEND, json={}).text == f"ingest_api {SEND}"
    assert httpx.get(world.url + SEND).text == f"delivery {SEND}"
    assert httpx.get(f"{world.url}/v1/users/me").text == "ingest_api /v1/users/me"


@pytest.mark.parametrize(
    "path",
    [
        "/metrics",
        "/healthz",
        "/readyz",
        "/docs",
        "/openapi.json",
        "/v1",
        "/v1/conversations/",
        f"{SEND}/{ID}/deliveries/more",
        "//metrics",
        "/v1/../metrics",
        "/v1/users/me/../../../metrics",
        "/v1/%2e%2e/metrics",
        "/v1/users%2f..%2f..%2fmetrics",
        "/%6detrics",
        "/metrics/",
        "/metrics?/v1/users/me",
        "/v1/users/me/..;/metrics",
        "/v1/users/me%00/metrics",
    ],
)
def test_what_is_not_named_is_not_found_and_reaches_nobody(world: World, path: str) -> None:
    answer = world.say(f"GET {path} HTTP/1.1\r\nConnection: close\r\n".encode() + HOST + b"\r\n")

    assert statuses(answer)[0] in (400, 404)
    assert world.seen() == []


@pytest.mark.parametrize("path", ["//v1/users/me", "/metrics/../v1/users/me", "/v1/conversations/..%2f..%2fmetrics"])
def test_what_means_an_address_but_does_not_spell_it_is_passed_on_as_it_is_spelt_or_not_at_all(
    world: World, path: str
) -> None:
    world.say(f"GET {path} HTTP/1.1\r\nConnection: close\r\n".encode() + HOST + b"\r\n")

    assert world.seen() in ([], [("GET", path)])


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", SEND, "GET, POST"),
        ("HEAD", "/v1/stream", "GET"),
        ("OPTIONS", "/oauth/token", "POST"),
        ("TRACE", "/v1/users/me", "GET, PATCH"),
        ("POST", "/v1/ws", "GET"),
    ],
)
def test_another_method_is_refused_with_those_that_are_allowed(
    world: World, method: str, path: str, allowed: str
) -> None:
    answer = httpx.request(method, world.url + path)

    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    assert world.seen() == []


def test_refusals_are_problem_documents_with_security_headers_and_without_the_server_s_name(world: World) -> None:
    answer = httpx.get(f"{world.url}/nothing")

    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == answer.status_code == 404
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert not {"server", "via", "alt-svc"} & set(answer.headers)


def test_answers_of_programs_get_security_headers_and_lose_the_server_s_name(world: World) -> None:
    answer = httpx.get(f"{world.url}/v1/conversations")

    assert answer.status_code == 200
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert not {"server", "via"} & set(answer.headers)


def test_what_a_client_says_of_its_address_is_replaced_by_its_address(world: World) -> None:
    forged = {
        "X-Forwarded-For": "203.0.113.9",
        "X-Forwarded-Host": "evil.test",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Port": "1",
        "X-Forwarded-Prefix": "/evil",
        "Forwarded": "for=203.0.113.9",
        "X-Real-IP": "203.0.113.9",
        "Via": "1.1 evil",
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in forged.items())
    again = "X-Forwarded-For: 203.0.113.10\r\nx-forwarded-for: 203.0.113.11\r\n"
    named = f"GET /v1/conversations HTTP/1.1\r\nConnection: close, X-Forwarded-For\r\n{lines}{again}"
    world.say(named.encode() + HOST + b"\r\n")

    [request] = world.delivery.requests
    assert request.headers["x-forwarded-for"] == ["127.0.0.1"]
    assert request.headers["x-forwarded-proto"] == ["http"]
    assert request.headers["x-forwarded-host"] == ["chat.test"]
    assert "203.0.113" not in str(request.headers)
    assert "evil" not in str(request.headers)
    assert request.headers["host"] == ["chat.test"]
