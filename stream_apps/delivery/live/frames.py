"""What the server says over a WebSocket, as JSON lines (docs/live.md). Pure."""

from __future__ import annotations

import json
import re
from typing import Any

from stream_apps.delivery.live.encoding import Subscription

_LINE_ENDS = re.compile(rb"[\r\n]+")


class WebSocketLines:
    """The encoding of `GET /v1/ws` (see Encoding): one JSON object per line."""

    name = "websocket"
    separator = b"\n"
    preamble = b""
    heartbeat = b'{"type":"heartbeat"}'

    def event(self, event_type: str, payload: bytes) -> bytes:
        """Line ends of a payload can only be space between its parts: within its strings they are escaped."""
        if b"\n" in payload or b"\r" in payload:
            payload = _LINE_ENDS.sub(b" ", payload)
        return b'{"type":"event","event":' + payload

    def ephemeral(self, event_type: str, payload: bytes) -> bytes:
        """An event without a cursor."""
        return self.finish(self.event(event_type, payload), b"")

    def ready(self, subscription: Subscription, *, after_seq: int | None, is_resumed: bool) -> bytes:
        """It repeats how the client named its request."""
        fields: dict[str, Any] = {"conversation_id": subscription.conversation_id, "resumed": is_resumed}
        if after_seq is not None:
            fields["after_seq"] = after_seq
        return encode_line("subscribed", ref=subscription.ref, **fields)[:-1]

    def gap(self, conversation_id: str | None, after_seq: int | None, next_seq: int | None, reason: str) -> bytes:
        """A client that follows one conversation resumes from `next_seq`."""
        fields: dict[str, Any] = {
            "conversation_id": conversation_id,
            "after_seq": after_seq,
            "next_seq": next_seq,
            "reason": reason,
        }
        return encode_line("gap", **fields)[:-1]

    def finish(self, encoded: bytes, cursor: bytes) -> bytes:
        """Adds the cursor as the last member."""
        return b'%b,"cursor":"%b"}' % (encoded, cursor) if cursor else encoded + b"}"

    def goodbye(self, reason: str, reconnect_in_ms: int | None) -> bytes:
        """The close frame follows it."""
        return encode_line("goodbye", reason=reason, reconnect_in_ms=reconnect_in_ms)


LINES = WebSocketLines()


def encode_line(kind: str, *, ref: str | None = None, **fields: Any) -> bytes:
    """A JSON object with the member `type`; `ref` only if there is one."""
    named = {} if ref is None else {"ref": ref}
    return json.dumps({"type": kind, **named, **fields}, separators=(",", ":"), ensure_ascii=False).encode()
