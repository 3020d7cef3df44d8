"""Server-Sent Events, written here and read back by the rules of the standard."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_apps.delivery.live.encoding import Subscription
from stream_apps.delivery.sse import SSE
from tests.chat_client import StreamEvent, parse_stream


async def parse(data: bytes) -> list[StreamEvent]:
    async def lines() -> AsyncIterator[str]:
        for line in data.decode().split("\n"):
            yield line

    return [event async for event in parse_stream(lines())]


@given(st.dictionaries(st.text(), st.text()))
async def test_a_payload_arrives_byte_for_byte(document: dict[str, str]) -> None:
    payload = json.dumps(document, ensure_ascii=False).encode()
    sent = SSE.preamble + SSE.finish(SSE.event("MessageSent", payload), b"abc") + SSE.heartbeat
    assert await parse(sent) == [StreamEvent("MessageSent", "abc", payload.decode())]


@pytest.mark.parametrize("line_end", [b"\n", b"\r", b"\r\n"])
def test_a_payload_of_several_lines_becomes_several_data_lines(line_end: bytes) -> None:
    event = SSE.event("MessageSent", b"{" + line_end + b"}")
    assert SSE.finish(event, b"x") == b"event: MessageSent\ndata: {\ndata: }\nid: x\n\n"


async def test_ready_and_gap_are_events_with_cursors() -> None:
    encoded = SSE.ready(Subscription(), after_seq=None, is_resumed=True)
    sent = SSE.finish(encoded, b"a") + SSE.finish(SSE.gap("c", 4, 9, "missing"), b"b")
    ready, gap = await parse(sent)
    assert (ready.event, ready.id, json.loads(ready.data)) == ("ready", "a", {"resumed": True})
    assert (gap.event, gap.id) == ("gap", "b")
    assert json.loads(gap.data) == {"conversation_id": "c", "after_seq": 4, "reason": "missing"}


async def test_goodbye_tells_a_browser_how_long_to_wait() -> None:
    sent = SSE.goodbye("shutdown", 1234)
    assert sent.startswith(b"retry: 1234\n")
    (goodbye,) = await parse(sent)
    assert (goodbye.event, goodbye.id) == ("goodbye", "")
    assert json.loads(goodbye.data) == {"reason": "shutdown", "reconnect_in_ms": 1234}
