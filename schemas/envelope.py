"""The envelope: what a record on `conversation.events` says outside its value, and how it is read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from schemas.ids import MalformedKey, conversation_id_of_key, is_uuid

HEADER_EVENT_ID = "id"
HEADER_EVENT_TYPE = "eventType"
HEADER_SEQ = "seq"
HEADER_TRACEPARENT = "traceparent"


LARGEST_SEQ = 2**53
"""Redis' scripts count in floating point, which is exact up to here."""


class MalformedEnvelope(ValueError):
    """The record has no usable key or headers, so no conversation and seq can be told."""


class Envelope(NamedTuple):
    """Key and headers of one record. `payload` is the value: the exact JSON text that was stored, UTF-8. (A tuple: one
    is made of every record, and a frozen dataclass costs three times as much.)"""

    conversation_id: str
    seq: int
    event_id: str
    event_type: str
    payload: bytes
    traceparent: str | None = None


def read_envelope(key: bytes | None, headers: Iterable[tuple[str, bytes | None]], value: bytes | None) -> Envelope:
    """The envelope of a Kafka record (source of the headers: Debezium's Outbox Event Router, see
    connectors/configs). The value is not parsed. Raises MalformedEnvelope."""
    found = dict(headers)
    try:
        conversation_id = conversation_id_of_key(key or b"")
        seq = _read_seq(found[HEADER_SEQ])
        event_id = (found[HEADER_EVENT_ID] or b"").decode()
        event_type = (found[HEADER_EVENT_TYPE] or b"").decode()
    except (MalformedKey, KeyError, ValueError) as error:
        raise MalformedEnvelope(f"{type(error).__name__}: {error}") from error
    if not 1 <= seq <= LARGEST_SEQ:
        raise MalformedEnvelope(f"seq is {seq}, and seqs go from 1 to {LARGEST_SEQ}")
    if not is_uuid(event_id):
        raise MalformedEnvelope(f"the header {HEADER_EVENT_ID} is not a UUID: {event_id!r}")
    if not event_type:
        raise MalformedEnvelope(f"the header {HEADER_EVENT_TYPE} is empty")
    if not value:
        raise MalformedEnvelope("the record has no value")
    traceparent = found.get(HEADER_TRACEPARENT)
    return Envelope(
        conversation_id,
        seq,
        event_id,
        event_type,
        value,
        traceparent.decode("ascii", "replace") if traceparent else None,
    )


def _read_seq(text: bytes | None) -> int:
    """Digits alone: int() takes more (`1_0`, ` 7`)."""
    if not text or not text.isdigit() or len(text) > 19:
        raise ValueError(f"the header {HEADER_SEQ} is no seq: {(text or b'')[:40]!r}")
    return int(text)
