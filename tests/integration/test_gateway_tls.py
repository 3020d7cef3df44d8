"""The gateway in production: what TLS it speaks, what it says over plain HTTP, and odd requests over HTTP/2."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator

import httpx
import pytest

from tests.acme import verifying_context
from tests.production_gateway import DOMAIN, ProductionGateway, start_production_gateway

SETTINGS, HEADERS, DATA = 4, 1, 0
END_STREAM, END_HEADERS = 1, 4


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProductionGateway]:
    with start_production_gateway(tmp_path_factory.mktemp("certificates")) as gateway:
        yield gateway


@pytest.fixture
def world(running: ProductionGateway) -> ProductionGateway:
    for upstream in (running.api, running.delivery):
        upstream.requests.clear()
        upstream.unread.clear()
    return running


def get(world: ProductionGateway, path: str, *, host: str = DOMAIN) -> httpx.Response:
    with httpx.Client(verify=verifying_context(world.acme), timeout=30) as http:
        return http.get(
            f"https://127.0.0.1:{world.acme.tls_port}{path}",
            headers={"Host": host},
            extensions={"sni_hostname": DOMAIN},
        )


def test_browsers_are_told_to_come_by_https_alone(world: ProductionGateway) -> None:
    answer = get(world, "/v1/conversations")

    assert answer.text == "delivery /v1/conversations"
    assert answer.headers["strict-transport-security"] == "max-age=63072000"
    assert not {"server", "via", "alt-svc"} & set(answer.headers)
    assert world.delivery.requests[0].headers["x-forwarded-proto"] == ["https"]
    assert "strict-transport-security" in get(world, "/refused").headers


def test_plain_http_is_redirected_and_reaches_nobody(world: ProductionGateway) -> None:
    answer = httpx.get(f"http://127.0.0.1:{world.acme.http_port}/v1/users/me", headers={"Host": DOMAIN})

    assert answer.status_code == 308
    assert answer.headers["location"].startswith(f"https://{DOMAIN}")
    assert world.seen() == []


def test_other_names_are_not_answered_for(world: ProductionGateway) -> None:
    plain = httpx.get(f"http://127.0.0.1:{world.acme.http_port}/v1/users/me", headers={"Host": "evil.test"})
    assert (plain.status_code, plain.json()["status"]) == (421, 421)
    assert get(world, "/v1/users/me", host="evil.test").status_code == 421
    with socket.create_connection(("127.0.0.1", world.acme.tls_port), 10) as connection, pytest.raises(ssl.SSLError):
        verifying_context(world.acme).wrap_socket(connection, server_hostname="evil.test")
    assert world.seen() == []


def handshake(world: ProductionGateway, version: ssl.TLSVersion, ciphers: str) -> str:
    """The cipher suite that is agreed on when a client offers these alone. Raises OSError when there is none."""
    context = verifying_context(world.acme)
    context.minimum_version = context.maximum_version = version
    context.set_ciphers(f"{ciphers}:@SECLEVEL=0")
    with (
        socket.create_connection(("127.0.0.1", world.acme.tls_port), 10) as connection,
        context.wrap_socket(connection, server_hostname=DOMAIN) as secured,
    ):
        cipher = secured.cipher()
        assert cipher is not None
        assert secured.compression() is None
        return cipher[0]


def test_tls_1_2_and_1_3_are_spoken_with_strong_suites(world: ProductionGateway) -> None:
    assert handshake(world, ssl.TLSVersion.TLSv1_3, "ALL").startswith("TLS_")
    assert handshake(world, ssl.TLSVersion.TLSv1_2, "ALL").startswith("ECDHE-ECDSA-")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")
def test_older_versions_are_refused(world: ProductionGateway, version: ssl.TLSVersion) -> None:
    with pytest.raises(OSError, match=r"alert"):
        handshake(world, version, "ALL")


@pytest.mark.parametrize(
    "ciphers", ["ECDHE-ECDSA-AES256-SHA:ECDHE-ECDSA-AES128-SHA256", "kRSA", "kDHE", "aNULL", "eNULL"]
)
def test_weak_suites_are_refused(world: ProductionGateway, ciphers: str) -> None:
    with pytest.raises(OSError, match="HANDSHAKE_FAILURE"):
        handshake(world, ssl.TLSVersion.TLSv1_2, ciphers)


# --- HTTP/2 ---


def frame(kind: int, flags: int, payload: bytes, *, stream: int = 1) -> bytes:
    """One frame (RFC 9113, section 4.1)."""
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def fields(*pairs: tuple[bytes, bytes]) -> bytes:
    """Header fields as literals, never indexed and not compressed (RFC 7541, section 6.2.3); each under 127 bytes."""
    return b"".join(b"\x10%c%s%c%s" % (len(name), name, len(value), value) for name, value in pairs)


def say_http2(world: ProductionGateway, *frames: bytes) -> None:
    """Sends frames after the preface, and waits until the gateway closes the connection or falls silent."""
    context = verifying_context(world.acme)
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", world.acme.tls_port), 10) as connection,
        context.wrap_socket(connection, server_hostname=DOMAIN) as secured,
    ):
        assert secured.selected_alpn_protocol() == "h2"
        secured.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, b"", stream=0) + b"".join(frames))
        secured.settimeout(0.3)
        try:
            while secured.recv(65_536):
                pass
        except (TimeoutError, OSError):
            pass


PLAIN = ((b":method", b"POST"), (b":scheme", b"https"), (b":authority", DOMAIN.encode()), (b":path", b"/v1/users"))
SMUGGLED = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"


def test_http2_is_spoken(world: ProductionGateway) -> None:
    say_http2(world, frame(HEADERS, END_HEADERS, fields(*PLAIN)), frame(DATA, END_STREAM, b"hello"))

    assert world.seen() == [("POST", "/v1/users", b"hello")]


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        pytest.param((*PLAIN, (b"transfer-encoding", b"chunked")), b"0\r\n\r\n" + SMUGGLED, id="H2.TE"),
        pytest.param((*PLAIN, (b"content-length", b"0")), SMUGGLED, id="H2.CL too short"),
        pytest.param((*PLAIN, (b"content-length", b"500")), SMUGGLED, id="H2.CL too long"),
        pytest.param((*PLAIN, (b"content-length", b"5"), (b"content-length", b"0")), b"hello", id="two lengths"),
        pytest.param(
            (*PLAIN, (b"x", b"y\r\nTransfer-Encoding: chunked")), b"0\r\n\r\n" + SMUGGLED, id="CRLF in a value"
        ),
        pytest.param(
            (*PLAIN, (b"x: y\r\ntransfer-encoding", b"chunked")), b"0\r\n\r\n" + SMUGGLED, id="CRLF in a name"
        ),
        pytest.param((*PLAIN[:3], (b":path", b"/v1/users HTTP/1.1\r\nX: y")), b"hello", id="CRLF in the path"),
        pytest.param((*PLAIN[:3], (b":path", b"/metrics")), b"", id="an operator's address"),
        pytest.param((*PLAIN[:3], (b":path", b"metrics")), b"", id="no path"),
        pytest.param(
            ((b":method", b"GET /metrics HTTP/1.1\r\nX: y\r\n\r\nPOST"), *PLAIN[1:]), b"", id="CRLF in the method"
        ),
        pytest.param((*PLAIN[:2], (b":authority", b"chat.example\r\nX: y"), PLAIN[3]), b"", id="CRLF in the authority"),
        pytest.param((*PLAIN, (b":path", b"/metrics")), b"", id="two paths"),
        pytest.param((*PLAIN, (b"connection", b"keep-alive")), b"", id="a header of HTTP/1"),
        pytest.param((*PLAIN, (b"host", b"evil.test")), b"", id="another host"),
    ],
)
def test_a_request_within_a_request_over_http2_never_reaches_a_program(
    world: ProductionGateway, headers: tuple[tuple[bytes, bytes], ...], body: bytes
) -> None:
    say_http2(world, frame(HEADERS, END_HEADERS, fields(*headers)), frame(DATA, END_STREAM, body))

    for method, target, received in world.seen():
        assert (method, target) == ("POST", "/v1/users")
        # Where the length says 0, Caddy may see that there is more only after it has passed on the head.
        assert received == body or (received == b"" and (b"content-length", b"0") in headers)
    assert world.api.unread == world.delivery.unread == []
    assert "evil.test" not in str([seen.headers for seen in world.api.requests])
    assert get(world, "/v1/conversations").text == "delivery /v1/conversations"
