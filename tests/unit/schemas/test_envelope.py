"""Reading a record's key and headers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.envelope import MalformedEnvelope, read_envelope
from schemas.ids import MalformedKey, conversation_id_of_key, conversation_key
from schemas.passages import Passage
from schemas.redis_keys import LiveFrame, decode_live_frame, encode_live_frame

CONVERSATION_ID, EVENT_ID = "0c8f1d3e-93a1-4b0e-8f0e-1f5d3c6a7b21", "6f1c1f0a-2d55-4c39-9a55-64a1d7c5e0f2"


def headers(**changes: bytes | None) -> list[tuple[str, bytes | None]]:
    found: dict[str, bytes | None] = {
        "id": EVENT_ID.encode(),
        "eventType": b"MessageSent",
        "seq": b"3",
        "traceparent": None,
        **changes,
    }
    return list(found.items())


def test_a_record_as_the_connector_writes_it_is_read() -> None:
    envelope = read_envelope(conversation_key(CONVERSATION_ID).encode(), headers(), b"{}")
    assert (envelope.conversation_id, envelope.seq, envelope.event_id) == (CONVERSATION_ID, 3, EVENT_ID)
    assert (envelope.event_type, envelope.payload, envelope.traceparent) == ("MessageSent", b"{}", None)


@pytest.mark.parametrize(
    "changes",
    [
        {"seq": b"0"},
        {"seq": b"-1"},
        {"seq": b"x"},
        {"seq": b"1_0"},
        {"seq": b" 7"},
        {"seq": "７".encode()},
        {"seq": b"9007199254740993"},
        {"seq": b"9" * 5000},
        {"seq": None},
        {"id": b"1"},
        {"eventType": b""},
        {"eventType": None},
    ],
)
def test_headers_that_say_nothing_usable_are_refused(changes: dict[str, bytes | None]) -> None:
    with pytest.raises(MalformedEnvelope):
        read_envelope(conversation_key(CONVERSATION_ID).encode(), headers(**changes), b"{}")


@pytest.mark.parametrize("key", [None, b"", b"conversation:", b"user:" + CONVERSATION_ID.encode(), b"\xff"])
def test_a_key_of_something_else_is_refused(key: bytes | None) -> None:
    with pytest.raises(MalformedEnvelope):
        read_envelope(key, headers(), b"{}")


@pytest.mark.parametrize("value", [None, b""])
def test_a_record_without_a_value_is_refused(value: bytes | None) -> None:
    with pytest.raises(MalformedEnvelope):
        read_envelope(conversation_key(CONVERSATION_ID).encode(), headers(), value)


@given(st.uuids())
def test_a_key_gives_back_its_conversation(conversation_id: object) -> None:
    assert conversation_id_of_key(conversation_key(str(conversation_id)).encode()) == str(conversation_id)


@given(st.binary(max_size=60))
def test_any_other_bytes_are_a_malformed_key(key: bytes) -> None:
    with pytest.raises(MalformedKey):
        conversation_id_of_key(key)


@given(st.integers(min_value=1), st.binary())
def test_a_live_frame_gives_back_what_went_in(seq: int, payload: bytes) -> None:
    frame = LiveFrame(seq, "MessageSent", EVENT_ID, payload)
    assert decode_live_frame(encode_live_frame(frame)) == frame


@given(st.integers(min_value=1), st.integers(min_value=1), st.booleans())
def test_a_live_frame_gives_back_its_passage(appended_ms: int, applied_us: int, is_traced: bool) -> None:
    passage = Passage(appended_ms, f"00-{'ab' * 16}-{'cd' * 8}-01" if is_traced else None, applied_us)
    frame = LiveFrame(1, "MessageSent", EVENT_ID, b"{}", passage)
    assert decode_live_frame(encode_live_frame(frame)) == frame


@pytest.mark.parametrize(
    "data", [b"", b"1 MessageSent", b"1 MessageSent\n{}", b"x MessageSent id\n{}", b"1 MessageSent id 2 -\n{}"]
)
def test_anything_else_is_no_live_frame(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        decode_live_frame(data)
