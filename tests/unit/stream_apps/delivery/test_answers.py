"""Answers that are not told twice, and that travel smaller."""

from __future__ import annotations

import gzip
from typing import Any

import pytest
from fastapi import Request

from stream_apps.delivery.answers import COMPRESSED_FROM_BYTES, accepts_gzip, answer_json

LARGE = b'{"text":"' + b"x" * COMPRESSED_FROM_BYTES + b'"}'


def request(**headers: str) -> Request:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope: dict[str, Any] = {"type": "http", "headers": raw}
    return Request(scope)


def test_an_answer_that_the_client_has_is_not_told_again() -> None:
    first = answer_json(request(), b"{}")
    tag = first.headers["etag"]
    assert (first.status_code, first.body) == (200, b"{}")
    assert first.headers["cache-control"] == "private, no-cache"
    for known in (tag, tag.removeprefix("W/"), f'"other", {tag}', "*"):
        again = answer_json(request(if_none_match=known), b"{}")
        assert (again.status_code, again.body, again.headers["etag"]) == (304, b"", tag)
    assert answer_json(request(if_none_match=tag), b'{"more": 1}').status_code == 200


def test_a_large_answer_is_compressed_for_who_takes_that() -> None:
    plain, small = answer_json(request(), LARGE), answer_json(request(accept_encoding="gzip, deflate"), LARGE)
    assert "content-encoding" not in plain.headers
    assert small.headers["content-encoding"] == "gzip"
    assert gzip.decompress(bytes(small.body)) == plain.body == LARGE
    assert small.headers["vary"] == "Accept-Encoding"
    assert small.headers["etag"] == plain.headers["etag"]
    assert "content-encoding" not in answer_json(request(accept_encoding="gzip"), b"{}").headers


@pytest.mark.parametrize(
    ("header", "accepts"),
    [
        ("gzip", True),
        ("br, GZIP;q=0.5", True),
        ("*", True),
        ("", False),
        ("br", False),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("xgzip", False),
    ],
)
def test_gzip_is_used_only_if_it_is_accepted(header: str, accepts: bool) -> None:
    assert accepts_gzip(header) == accepts
