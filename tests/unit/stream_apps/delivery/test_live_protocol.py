"""The WebSocket's frames: what is understood, what is refused, and that the documents say the same."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from schemas.ephemeral import EPHEMERAL_EVENT_TYPES
from stream_apps.delivery.live import commands
from stream_apps.delivery.live.client import End
from stream_apps.delivery.live.commands import (
    FRAMES_AT_ONCE,
    FRAMES_PER_SECOND,
    AnyFrame,
    FrameBudget,
    MalformedFrame,
    is_origin_allowed,
    parse_frame,
    token_in,
)
from stream_apps.delivery.live.encoding import LiveEvent, Subscription
from stream_apps.delivery.live.frames import LINES, encode_line
from stream_apps.delivery.live.presence import encode_presence
from stream_apps.delivery.live.typing_notes import encode_typing

ROOT = Path(__file__).resolve().parents[4]
DOCUMENT = yaml.safe_load((files("schemas") / "live.yaml").read_text())
ID = "0198c0de-0000-7000-8000-000000000001"


@given(st.text(max_size=200))
def test_no_text_is_more_than_malformed(text: str) -> None:
    with pytest.raises(MalformedFrame):
        parse_frame(text)


def test_a_refusal_repeats_nothing_of_what_was_sent() -> None:
    with pytest.raises(MalformedFrame) as refused:
        parse_frame(json.dumps({"type": "authenticate", "token": ["secret"]}))
    assert "secret" not in str(refused.value)
    assert "secret" not in repr(parse_frame(json.dumps({"type": "authenticate", "token": "secret"})))


def test_a_client_may_send_many_frames_at_once_and_some_per_second() -> None:
    budget = FrameBudget(now=0.0)
    assert [budget.take(now=0.0) for _ in range(int(FRAMES_AT_ONCE) + 1)] == [True] * int(FRAMES_AT_ONCE) + [False]
    assert [budget.take(now=1.0) for _ in range(int(FRAMES_PER_SECOND) + 1)] == [True] * int(FRAMES_PER_SECOND) + [
        False
    ]


@pytest.mark.parametrize(
    ("origin", "host", "is_allowed"),
    [
        (None, "chat.example", True),
        ("https://chat.example", "chat.example", True),
        ("https://CHAT.example", "chat.example", True),
        ("http://chat.example:8080", "chat.example:8080", True),
        ("https://listed.example", "chat.example", True),
        ("https://chat.example", "chat.example:8080", False),
        ("https://evil.example", "chat.example", False),
        ("https://chat.example.evil.example", "chat.example", False),
        ("file://chat.example", "chat.example", False),
        ("null", "chat.example", False),
        ("", "", False),
    ],
)
def test_an_origin_is_that_of_the_address_or_listed(origin: str | None, host: str, is_allowed: bool) -> None:
    assert is_origin_allowed(origin, host, frozenset({"https://listed.example"})) == is_allowed


def test_the_token_is_found_among_the_subprotocols() -> None:
    assert token_in(["chat4all.v1", "bearer.a.b.c"]) == "a.b.c"
    assert token_in(["chat4all.v1"]) is None


def test_every_line_is_one_json_object_whatever_is_in_the_payload() -> None:
    payload = b'{"text": "a\\nb",\n "seq": 2}\r\n'
    line = LINES.finish(LINES.event("MessageSent", payload), b"abc")
    assert b"\n" not in line
    assert json.loads(line) == {"type": "event", "event": {"text": "a\nb", "seq": 2}, "cursor": "abc"}
    assert json.loads(LINES.ephemeral("Typing", b'{"a": 1}')) == {"type": "event", "event": {"a": 1}}
    ready = LINES.ready(Subscription(ID, "r"), after_seq=4, is_resumed=True)
    assert json.loads(LINES.finish(ready, b"")) == {
        "type": "subscribed",
        "ref": "r",
        "conversation_id": ID,
        "resumed": True,
        "after_seq": 4,
    }
    gap = json.loads(LINES.finish(LINES.gap(ID, 4, 9, "missing"), b""))
    assert gap == {"type": "gap", "conversation_id": ID, "after_seq": 4, "next_seq": 9, "reason": "missing"}
    assert json.loads(encode_line("pong")) == {"type": "pong"}
    assert json.loads(LINES.heartbeat) == {"type": "heartbeat"}


def test_an_event_is_encoded_once_for_all_who_watch_it() -> None:
    event = LiveEvent("MessageSent", b"{}", 4)
    assert event.encoded(LINES) is event.encoded(LINES)


@pytest.mark.parametrize(
    ("frame", "name"),
    [(encode_typing(ID, ID), "Typing"), (encode_presence(ID, ID, is_online=True), "PresenceChanged")],
)
def test_ephemeral_events_are_as_they_are_published(frame: bytes, name: str) -> None:
    head, _, payload = frame.partition(b"\n")
    assert head.decode() == f"0 {name} {ID}"
    told = EPHEMERAL_EVENT_TYPES[name].model_validate_json(payload)
    assert set(json.loads(payload)) == set(told.model_dump())


def schema_of(message: str) -> dict[str, Any]:
    found: dict[str, Any] = DOCUMENT["components"]["messages"][message]["payload"]
    return found


def test_asyncapi_describes_every_frame_of_a_client_as_it_is_read() -> None:
    sent = {m["$ref"].rpartition("/")[2] for m in DOCUMENT["operations"]["takeFrames"]["messages"]}
    assert sent == {frame.model_fields["type"].annotation.__args__[0] for frame in get_args(AnyFrame)}
    for frame in get_args(AnyFrame):
        generated = frame.model_json_schema()
        described = schema_of(generated["properties"]["type"]["const"])
        assert set(described["properties"]) == set(generated["properties"])
        assert set(described["required"]) == set(generated["required"])


def test_the_documents_name_every_ending_and_every_error() -> None:
    page = (ROOT / "docs" / "live.md").read_text()
    told = set(End) - {End.CLIENT_LEFT}
    assert set(schema_of("goodbye")["properties"]["reason"]["enum"]) == {end.reason for end in told}
    for end in told:
        assert re.search(rf"\| `{end.reason}` \| {end.close_code} \|", page), end
    source = (ROOT / "stream_apps" / "delivery" / "live" / "connection.py").read_text()
    codes = set(re.findall(r'(?:Refused\(|code=|say_error\(frame, )"([a-z_]+)"', source))
    assert codes == set(schema_of("error")["properties"]["code"]["enum"])
    assert all(f"`{code}`" in page for code in codes)
    assert f"at most {commands.MAX_FRAME_BYTES // 1024} KiB" in page
