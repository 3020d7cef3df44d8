"""The gateway by itself: what it refuses, what it says of who called, and what never reaches a program."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass

import httpx
import psutil
import pytest

from tests.caddy import Gateway, start_caddy
from tests.integration.servers import free_port
from tests.upstream import Upstream, start_upstream

ID = "0197b0a0-0000-7000-8000-000000000001"
SEND = f"/v1/conversations/{ID}/messages"
SILENCE_SECONDS = 0.3
SECRET = "a.secret.token"
HOST = b"Host: chat.test\r\n"
SHORTER = {
    "read_header 10s": "read_header 1s",
    "read_body 30s": "read_body 2s",
    "idle 2m": "idle 1s",
    "grace_period 5s": "grace_period 1s",
}
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

    def say(self, *requests: bytes) -> bytes:
        """Sends each on a connection of its own. What comes back, until the gateway closes them or falls silent."""
        answer = b""
        with ExitStack() as connections:
            opened = []
            for request in requests:
                connection = socket.create_connection(("127.0.0.1", self.gateway.port), 10)
                opened.append(connections.enter_context(connection))
                connection.sendall(request)
            silent_at = time.monotonic() + SILENCE_SECONDS
            for connection in opened:
                with suppress(TimeoutError, ConnectionResetError):
                    while True:
                        connection.settimeout(max(0.01, silent_at - time.monotonic()))
                        part = connection.recv(65_536)
                        if not part:
                            break
                        answer += part
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


def body_of(text: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(text), text)


SMUGGLED = b"GET /metrics HTTP/1.1\r\nHost: chat.test\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
ENDED = b"0\r\n\r\n"


def length(text: bytes) -> bytes:
    return b"Content-Length: %d\r\n" % len(text)


@pytest.mark.parametrize(
    "rest",
    [
        # A length and chunks, in both orders: whoever believes the one sees two requests where the other sees one.
        pytest.param(length(ENDED + SMUGGLED) + CHUNKED + b"\r\n" + ENDED + SMUGGLED, id="CL.TE"),
        pytest.param(CHUNKED + length(ENDED + SMUGGLED) + b"\r\n" + ENDED + SMUGGLED, id="TE.CL order"),
        pytest.param(b"Content-Length: 4\r\n" + CHUNKED + b"\r\n" + body_of(SMUGGLED) + ENDED, id="TE.CL"),
        pytest.param(b"Content-Length: 0\r\n" + CHUNKED + b"\r\n" + body_of(SMUGGLED) + ENDED, id="TE.0"),
        # Chunks under a name that only some recognise.
        *(
            pytest.param(length(ENDED + SMUGGLED) + name + b"\r\n" + ENDED + SMUGGLED, id=f"TE.TE {number}")
            for number, name in enumerate(
                [
                    b"Transfer-Encoding: xchunked\r\n",
                    b"Transfer-Encoding : chunked\r\n",
                    b" Transfer-Encoding: chunked\r\n",
                    b"Transfer-Encoding:\x0bchunked\r\n",
                    b"Transfer-Encoding:\tchunked\r\n",
                    b"Transfer-Encoding: chunked\x00\r\n",
                    b"Transfer-Encoding: identity, chunked\r\n",
                    b"Transfer-Encoding: chunked, identity\r\n",
                    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
                    b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
                    b"Transfer-Encoding:\r\n chunked\r\n",
                    b"X: y\nTransfer-Encoding: chunked\r\n",
                    b"X: y\rTransfer-Encoding: chunked\r\n",
                    b"Transfer_Encoding: chunked\r\n",
                    b"Transfer-Encoding: 'chunked'\r\n",
                    b"Transfer-Encoding: CHUNKED\r\n",
                ]
            )
        ),
        # Lengths that disagree, or are none.
        *(
            pytest.param(lengths + b"\r\n" + b"12345" + SMUGGLED, id=f"CL {number}")
            for number, lengths in enumerate(
                [
                    b"Content-Length: 5\r\nContent-Length: %d\r\n" % (5 + len(SMUGGLED)),
                    b"Content-Length: %d\r\nContent-Length: 5\r\n" % (5 + len(SMUGGLED)),
                    b"Content-Length: 5, %d\r\n" % (5 + len(SMUGGLED)),
                    b"Content-Length: +5\r\n",
                    b"Content-Length: 0x5\r\n",
                    b"Content-Length: 5 5\r\n",
                    b"Content-Length: -5\r\n",
                    b"Content-Length : 5\r\n",
                    b"Content-Length: 5\x0b\r\n",
                    b"Content-Length: 99999999999999999999\r\n",
                    b"Content-Length: \r\n",
                ]
            )
        ),
        # Chunks that are measured or ended in other ways.
        *(
            pytest.param(CHUNKED + b"\r\n" + chunks, id=f"chunks {number}")
            for number, chunks in enumerate(
                [
                    b"0x5\r\n12345\r\n" + ENDED + SMUGGLED,
                    b"-5\r\n12345\r\n" + ENDED + SMUGGLED,
                    b"5;\n12345\r\n" + ENDED + SMUGGLED,
                    b"5;a=\r\n12345\r\n" + ENDED + SMUGGLED,
                    b"5\n12345\r\n" + ENDED + SMUGGLED,
                    b"5\r\n12345" + ENDED + SMUGGLED,
                    b"5\r\n1234567\r\n" + ENDED + SMUGGLED,
                    b"FFFFFFFFFFFFFFFFF\r\n12345\r\n" + ENDED + SMUGGLED,
                    b"0\r\nTransfer-Encoding: chunked\r\n\r\n" + SMUGGLED,
                    b"0\n\n" + SMUGGLED,
                ]
            )
        ),
        # Lines that end where only some see an end.
        pytest.param(b"X: y\r\n\rGET /metrics HTTP/1.1\r\n" + b"\r\n", id="bare CR"),
        pytest.param(b"X: y\n\nGET /metrics HTTP/1.1\nHost: chat.test\n\n", id="bare LF"),
        pytest.param(b"X: y\x00\r\n\r\n" + SMUGGLED, id="NUL"),
        pytest.param(b"Expect: 100-continue\r\n" + length(SMUGGLED) + b"\r\n" + SMUGGLED, id="Expect"),
        pytest.param(b"Connection: Content-Length\r\n" + length(SMUGGLED) + b"\r\n" + SMUGGLED, id="hop by hop"),
        pytest.param(b"Upgrade: h2c\r\nConnection: Upgrade\r\n" + length(SMUGGLED) + b"\r\n" + SMUGGLED, id="h2c"),
    ],
)
def test_a_request_within_a_request_never_reaches_a_program(world: World, rest: bytes) -> None:
    answer = world.say(*(f"{method} {SEND} HTTP/1.1\r\n".encode() + HOST + rest for method in ("POST", "GET")))

    assert world.seen() in ([], [("POST", SEND)], [("GET", SEND)], [("POST", SEND), ("GET", SEND)])
    assert world.api.unread == world.delivery.unread == []
    for request in (*world.api.requests, *world.delivery.requests):
        assert len(request.headers.get("content-length", [])) + len(request.headers.get("transfer-encoding", [])) <= 1
    assert set(statuses(answer)) <= {100, 200, 400, 404, 413, 501}
    assert httpx.get(f"{world.url}/v1/conversations").text == "delivery /v1/conversations"


@pytest.mark.parametrize(
    "line",
    [
        b"GET http://127.0.0.1:1/metrics HTTP/1.1",
        b"GET http://metrics/ HTTP/1.1\r\nHost: chat.test\r\nX:",
        b"GET https://chat.test/metrics?/v1/users/me HTTP/1.1",
        b"CONNECT 127.0.0.1:22 HTTP/1.1",
        b"CONNECT /v1/ws HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"GET /metrics HTTP/1.0",
        b"GET /metrics HTTP/3.7",
        b"GET /v1/users/me /metrics HTTP/1.1",
        b"GET\t/metrics\tHTTP/1.1",
        b"GET metrics HTTP/1.1",
        b"PRI * HTTP/2.0",
        b"get /metrics HTTP/1.1",
        b"G\x00T /metrics HTTP/1.1",
    ],
)
def test_odd_request_lines_reach_nobody(world: World, line: bytes) -> None:
    world.say(line + b"\r\nConnection: close\r\n" + HOST + b"\r\n")

    assert [seen for seen in world.seen() if seen[1] not in ("/",)] == []


def test_an_absolute_address_is_answered_by_path_and_never_followed(world: World) -> None:
    world.say(b"GET http://192.0.2.1/v1/users/me HTTP/1.1\r\nConnection: close\r\n" + HOST + b"\r\n")

    assert world.seen() == [("GET", "/v1/users/me")]


@pytest.mark.parametrize("hosts", [b"", HOST + b"Host: evil.test\r\n", b"Host: a b\r\n", b"Host: a/../b\r\n"])
def test_a_request_without_exactly_one_valid_host_is_refused(world: World, hosts: bytes) -> None:
    answer = world.say(b"GET /v1/users/me HTTP/1.1\r\n" + hosts + b"\r\n")

    assert statuses(answer) == [400]
    assert world.seen() == []


def test_a_body_over_the_limit_is_refused_as_the_api_would_and_reaches_nobody(world: World) -> None:
    for _ in range(5):
        answer = httpx.post(world.url + SEND, content=b"x" * 200_000)
        assert answer.status_code == 413
        assert answer.json() == {
            "type": "urn:chat4all:problem:body-too-large",
            "title": "Body too large",
            "status": 413,
            "detail": "A body may have 65536 bytes.",
            "limit_bytes": 65_536,
        }
    assert world.seen() == []


def test_a_body_over_the_limit_is_refused_though_it_comes_in_chunks(world: World) -> None:
    answer = httpx.post(world.url + SEND, content=iter([b"x" * 10_000] * 20))

    assert answer.status_code == 413
    assert world.seen() == []


def test_a_body_at_the_limit_arrives_whole(world: World) -> None:
    body = bytes(range(256)) * 256
    assert httpx.post(world.url + SEND, content=body).status_code == 200

    [request] = world.api.requests
    assert request.body == body


def test_headers_over_the_limit_are_refused(world: World) -> None:
    answer = world.say(b"GET /v1/users/me HTTP/1.1\r\n" + HOST + b"X: " + b"x" * 30_000 + b"\r\n\r\n")

    assert statuses(answer) == [431]
    assert world.seen() == []


@pytest.mark.parametrize(
    "beginning",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"POST /v1/users HTTP/1.1\r\nHost: chat.test\r\n", id="headers that do not end"),
        pytest.param(b"POST /v1/users HTTP/1.1\r\nHost: chat.test\r\nContent-Length: 9\r\n\r\n{", id="a body too"),
    ],
)
def test_whoever_does_not_finish_a_request_is_disconnected_and_bothers_nobody(world: World, beginning: bytes) -> None:
    with socket.create_connection(("127.0.0.1", world.gateway.port), 30) as connection:
        connection.sendall(beginning)
        while connection.recv(65_536):
            pass
    assert world.seen() == []


def test_headers_that_drip_do_not_extend_the_time_for_them(world: World) -> None:
    with socket.create_connection(("127.0.0.1", world.gateway.port), 30) as connection:
        connection.sendall(b"GET /v1/users/me HTTP/1.1\r\nHost: chat.test\r\n")
        began = time.monotonic()
        with suppress(ConnectionError):
            while time.monotonic() - began < 30:
                connection.sendall(b"X: y\r\n")
                time.sleep(0.1)
        assert time.monotonic() - began < 20
    assert world.seen() == []


def test_streams_outlast_every_timeout_and_come_as_they_are_sent(world: World) -> None:
    with httpx.stream("GET", f"{world.url}/v1/stream", timeout=30) as answer:
        began = time.monotonic()
        for line in answer.iter_lines():
            assert line in ("data: tick", "")
            if time.monotonic() - began > 4:
                return
    raise AssertionError("the stream ended")


def test_a_program_that_is_away_is_answered_for_with_a_problem_document() -> None:
    port = free_port()
    gone = f"127.0.0.1:{free_port()}"
    variables = {"CHAT4ALL_GATEWAY_PORT": str(port), "CHAT4ALL_DELIVERY_UPSTREAM": gone}
    with start_caddy(port, {**variables, "CHAT4ALL_INGEST_API_UPSTREAM": gone}) as gateway:
        answer = httpx.get(f"http://127.0.0.1:{port}/v1/conversations?cursor={SECRET}")

        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.json()["type"] == "urn:chat4all:problem:upstream-unavailable"
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert '"status":503' in gateway.log
        assert SECRET not in gateway.log


def test_the_log_has_what_was_refused_and_no_query_token_or_subprotocol(world: World) -> None:
    secrets = {"Authorization": f"Bearer {SECRET}", "Sec-WebSocket-Protocol": f"bearer.{SECRET}", "Cookie": SECRET}
    httpx.get(f"{world.url}/refused?token={SECRET}", headers=secrets)
    httpx.get(f"{world.url}/v1/conversations?token={SECRET}", headers=secrets)

    assert '"/refused"' in world.gateway.log
    assert SECRET not in world.gateway.log
    assert '"/v1/conversations"' not in world.gateway.log


def test_reading_its_files_again_takes_effect_and_ends_no_stream(world: World) -> None:
    routes = world.gateway.folder / "routes.caddyfile"
    before = routes.read_text("utf-8")
    with httpx.stream("GET", f"{world.url}/v1/stream", timeout=30) as answer:
        ticks = answer.iter_lines()
        next(ticks)
        routes.write_text(before.replace("path /v1/audit", "path /v1/revision"), "utf-8")
        try:
            world.gateway.reload()
            assert httpx.get(f"{world.url}/v1/revision").status_code == 200
            began = time.monotonic()
            while time.monotonic() - began < 3:  # longer than the grace period
                next(ticks)
        finally:
            routes.write_text(before, "utf-8")
            world.gateway.reload()
    assert httpx.get(f"{world.url}/v1/audit").status_code == 200


def test_while_it_ends_streams_go_on_for_a_moment(world: World) -> None:
    port = free_port()
    variables = {"CHAT4ALL_GATEWAY_PORT": str(port), "CHAT4ALL_DELIVERY_UPSTREAM": f"127.0.0.1:{world.delivery.port}"}
    with start_caddy(port, variables) as gateway:
        with httpx.stream("GET", f"http://127.0.0.1:{port}/v1/stream", timeout=30) as answer:
            ticks = answer.iter_lines()
            next(ticks)
            gateway.process.terminate()
            began = time.monotonic()
            while time.monotonic() - began < 1:
                next(ticks)
        gateway.process.wait(30)


def test_nobody_configures_it_over_http(world: World) -> None:
    listening = {
        c.laddr.port for c in psutil.Process(world.gateway.process.pid).net_connections() if c.status == "LISTEN"
    }

    assert listening == {world.gateway.port}
