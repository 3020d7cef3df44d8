"""Server-Sent Events as bytes (WHATWG HTML, section 9.2). Pure."""

from __future__ import annotations

import json
import re

# `retry` is how many milliseconds a browser waits before it reconnects. A stream begins with it, so that the headers
# are flushed at once.
PREAMBLE = b"retry: 1000\n\n"
COMMENT = b":\n\n"

READY = "ready"
GAP = "gap"

_LINE_ENDS = re.compile(rb"\r\n|\r|\n")


def encode_event(event_type: str, payload: bytes) -> bytes:
    """An event up to its id, which is all that differs between its watchers: `finish` adds that. The payload is not
    parsed; if it has line ends, each line becomes a data line, which the client joins by line feeds."""
    return b"event: %b\ndata: %b\nid: " % (event_type.encode(), _data_lines(payload))


def encode_ephemeral(event_type: str, payload: bytes) -> bytes:
    """A whole event without an id: a client's cursor stays where it is."""
    return b"event: %b\ndata: %b\n\n" % (event_type.encode(), _data_lines(payload))


def _data_lines(payload: bytes) -> bytes:
    if b"\n" in payload or b"\r" in payload:
        return b"\ndata: ".join(_LINE_ENDS.split(payload))
    return payload


def finish(event: bytes, cursor: bytes) -> bytes:
    """The whole event. The cursor has no line ends."""
    return event + cursor + b"\n\n"


def encode_ready(*, is_resumed: bool) -> bytes:
    """The first event of a stream: it carries the cursor, so that a client that sees nothing else can resume."""
    return encode_event(READY, json.dumps({"resumed": is_resumed}).encode())


def encode_gap(conversation_id: str | None, after_seq: int | None, reason: str) -> bytes:
    """The event that says: what came after `after_seq` is not proven to be told here; fetch it. Without a
    conversation it is about all of them."""
    document = {"conversation_id": conversation_id, "after_seq": after_seq, "reason": reason}
    return encode_event(GAP, json.dumps(document).encode())
