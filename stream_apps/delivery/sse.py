"""Server-Sent Events as bytes (WHATWG HTML, section 9.2). Pure."""

from __future__ import annotations

import json
import re

from stream_apps.delivery.live.encoding import Subscription

READY = "ready"
GAP = "gap"
GOODBYE = "goodbye"

_LINE_ENDS = re.compile(rb"\r\n|\r|\n")


class ServerSentEvents:
    """The encoding of `GET /v1/stream` (see Encoding)."""

    name = "sse"
    separator = b""
    # `retry` is how many milliseconds a browser waits before it reconnects. A stream begins with it, so that the
    # headers are flushed at once.
    preamble = b"retry: 1000\n\n"
    heartbeat = b":\n\n"

    def event(self, event_type: str, payload: bytes) -> bytes:
        """If the payload has line ends, each line becomes a data line, which the client joins by line feeds."""
        return b"event: %b\ndata: %b\nid: " % (event_type.encode(), _data_lines(payload))

    def ephemeral(self, event_type: str, payload: bytes) -> bytes:
        """Without an id: a client's cursor stays where it is."""
        return b"event: %b\ndata: %b\n\n" % (event_type.encode(), _data_lines(payload))

    def ready(self, subscription: Subscription, *, after_seq: int | None, is_resumed: bool) -> bytes:
        """It carries the cursor, so that a client that sees nothing else can resume."""
        return self.event(READY, json.dumps({"resumed": is_resumed}).encode())

    def gap(self, conversation_id: str | None, after_seq: int | None, next_seq: int | None, reason: str) -> bytes:
        """Without a conversation it is about all of them."""
        document = {"conversation_id": conversation_id, "after_seq": after_seq, "reason": reason}
        return self.event(GAP, json.dumps(document).encode())

    def finish(self, encoded: bytes, cursor: bytes) -> bytes:
        """Adds the cursor as the event's id."""
        return encoded + cursor + b"\n\n"

    def goodbye(self, reason: str, reconnect_in_ms: int | None) -> bytes:
        """A browser takes over how long to wait from `retry`."""
        document = json.dumps({"reason": reason, "reconnect_in_ms": reconnect_in_ms}).encode()
        retry = b"" if reconnect_in_ms is None else b"retry: %d\n" % reconnect_in_ms
        return retry + self.ephemeral(GOODBYE, document)


SSE = ServerSentEvents()


def _data_lines(payload: bytes) -> bytes:
    if b"\n" in payload or b"\r" in payload:
        return b"\ndata: ".join(_LINE_ENDS.split(payload))
    return payload
