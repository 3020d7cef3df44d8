"""The envelope: what a record on `conversation.events` says outside its value, and how it is read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from schemas.ids import MalformedKey, conversation_id_of_key, is_uuid

HEADER_EVENT_ID = "id"
HEADER_EVENT_TYPE = "eventType"
HEADER_SEQ = "seq"
HEADER_TRACEPARENT = "traceparent"


LARGEST_SEQ = 2**53
"""Redis' scripts count in floating point, which is exact up to here."""


class MalformedEnvelope(ValueError):
    """The record has no usable key or headers, so no conversation and seq can be told."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """Key and headers of one record. `payload` is the value: the exact JSON text that was stored, UTF-8."""

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
        seq = _read_seq(_text(found, HEADER_SEQ))
        event_id = _text(found, HEADER_EVENT_ID)
        event_type = _text(found, HEADER_EVENT_TYPE)
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
        conversation_id=conversation_id,
        seq=seq,
        event_id=event_id,
        event_type=event_type,
        payload=value,
        traceparent=traceparent.decode("ascii", "replace") if traceparent else None,
    )


def _read_seq(text: str) -> int:
    """Digits alone: int() takes more (`1_0`, ` 7`)."""
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ValueError(f"the header {HEADER_SEQ} is no seq: {text[:40]!r}")
    return int(text)


def _text(headers: dict[str, bytes | None], name: str) -> str:
    value = headers[name]
    if value is None:
        raise ValueError(f"the header {name} has no value")
    return value.decode("utf-8")
