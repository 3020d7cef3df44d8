"""A passage: when an event passed Kafka and Redis on its way, and under which trace, as live frames and timelines carry
it. When the event was accepted is in its payload."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

NOTHING = "-"
NO_ORIGIN = f"0 {NOTHING}"
"""The origin of an event that did not come by Kafka."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_CREATED_AT = b'"created_at":"'
_TIME_LENGTH = len("2026-01-02T03:04:05.678901Z")
_TRACEPARENT_LENGTH = len("00-00000000000000000000000000000000-0000000000000000-00")


class Passage(NamedTuple):
    """`appended_ms` is when Kafka appended the event's record (milliseconds since 1970, cut off; None: it did not come
    by Kafka), `applied_us` when Redis took it (microseconds since 1970). `traceparent` is W3C Trace Context's."""

    appended_ms: int | None
    traceparent: str | None
    applied_us: int


def encode_origin(appended_ms: int, traceparent: str | None) -> str:
    """What a record says of its passage: `<appended_ms> <traceparent or ->`. A traceparent that is none is left out:
    anybody who may write to the topic can put anything there."""
    is_sound = traceparent is not None and is_plain(traceparent)
    return f"{appended_ms} {traceparent}" if is_sound else f"{appended_ms} {NOTHING}"


def is_plain(traceparent: str) -> bool:
    """Whether it is as long as a traceparent, and one word: cheap enough for every record."""
    is_ascii = len(traceparent) == _TRACEPARENT_LENGTH and traceparent.isascii()
    return is_ascii and " " not in traceparent and traceparent.isprintable()


def decode_passage(text: str) -> Passage:
    """`<origin> <applied_us>`, as redis_tables/apply.lua writes it. Raises ValueError."""
    appended_ms, traceparent, applied_us = text.split(" ")
    return Passage(int(appended_ms) or None, None if traceparent == NOTHING else traceparent, int(applied_us))


def encode_passage(passage: Passage) -> str:
    """The inverse of decode_passage."""
    return f"{encode_origin(passage.appended_ms or 0, passage.traceparent)} {passage.applied_us}"


def find_created_us(payload: bytes) -> int | None:
    """When the event got its seq, in microseconds since 1970, from its exact text (which begins with seq and
    `created_at`); None if that is not there. The payload is not parsed."""
    at = payload.find(_CREATED_AT, 0, 48)
    if at < 0:
        return None
    at += len(_CREATED_AT)
    try:
        moment = datetime.fromisoformat(payload[at : at + _TIME_LENGTH].decode("ascii"))
    except ValueError:
        return None
    return (moment - _EPOCH) // _MICROSECOND if moment.tzinfo is not None else None


def format_us(moment: int) -> str:
    """Microseconds since 1970 as payloads carry times: RFC 3339, UTC, microseconds."""
    seconds, microseconds = divmod(moment, 1_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{microseconds:06d}Z"
