"""The door of a connection: what it takes for a whole command. (What it does: tests/e2e/test_crowd.py.)"""

from __future__ import annotations

import pytest

from ingest_api.http_protocol import is_whole_command

HEAD = b"POST /v1/conversations/x/messages HTTP/1.1\r\nHost: a\r\n"


@pytest.mark.parametrize(
    "data",
    [
        HEAD + b"Content-Length: 2\r\n\r\n{}",
        HEAD + b"content-length:2\r\nConnection: keep-alive\r\n\r\n{}",
        b"DELETE /v1/conversations/x/messages/y HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /v1/messages/batch HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        b"PATCH /v1/users/me HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
)
def test_a_whole_command_is_one(data: bytes) -> None:
    assert is_whole_command(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x16\x03\x01",
        HEAD,
        HEAD + b"Content-Length: 3\r\n\r\n{}",
        HEAD + b"Content-Length: 2\r\n\r\n{}POST",
        HEAD + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
        HEAD + b"Content-Length: +2\r\n\r\n{}",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        HEAD + b"Content-Length: 2\r\nConnection: close\r\n\r\n{}",
        HEAD + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n{}",
        b"GET /v1/audit HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /v1/users HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}",
        b"POST /v1/users?a HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}",
        b"POST /oauth/token HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}",
        b"POST /v1/conversations HTTP/1.0\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}",
    ],
)
def test_everything_else_is_the_parsers(data: bytes) -> None:
    assert not is_whole_command(data)
