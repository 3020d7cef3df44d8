"""Passages: what is told of an event's way, and read from texts that anybody may have written."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.passages import NO_ORIGIN, decode_passage, encode_origin, find_created_us, format_us

TRACEPARENT = f"00-{'ab' * 16}-{'cd' * 8}-01"


@given(st.datetimes(min_value=datetime(1971, 1, 1), max_value=datetime(2200, 1, 1)))  # noqa: DTZ001 - made aware below
def test_the_time_in_a_payload_is_read_to_the_microsecond(moment: datetime) -> None:
    text = f"{moment:%Y-%m-%dT%H:%M:%S.%f}Z"
    found = find_created_us(b'{"seq":9007199254740992,"created_at":"%b","event_id":"x"}' % text.encode())
    assert found is not None
    assert format_us(found) == text
    assert datetime.fromtimestamp(found // 1_000_000, UTC) == moment.replace(microsecond=0, tzinfo=UTC)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{}",
        b'{"seq":1,"created_at":"yesterday, at about three"}',
        b'{"seq":1,"created_at":"2026-01-02T03:04:05.678901"}',
        b'{"seq":1,"text":"                            ","created_at":"2026-01-02T03:04:05.678901Z"}',
        b'{"seq":1,"created_at":"\xff\xff\xff"}',
    ],
)
def test_a_payload_that_does_not_begin_with_its_time_tells_none(payload: bytes) -> None:
    assert find_created_us(payload) is None


@pytest.mark.parametrize("traceparent", [None, "", "00-1-2-01", "\n" * 55, " " * 55, "\ufffd" * 55])
def test_what_is_no_traceparent_is_left_out(traceparent: str | None) -> None:
    assert encode_origin(12, traceparent) == "12 -"


def test_an_origin_and_a_time_are_a_passage() -> None:
    assert decode_passage(f"{encode_origin(12, TRACEPARENT)} 34") == (12, TRACEPARENT, 34)
    assert decode_passage(f"{NO_ORIGIN} 34") == (None, None, 34)
