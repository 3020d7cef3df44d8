"""What goes to live clients, apart from how: an event is encoded once for each way that somebody watches it by."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from stream_apps.delivery.live.sending import Sending


@dataclass(frozen=True, slots=True)
class Subscription:
    """What a client asked to follow: one conversation, or (None) all that it is in. `ref` names its request."""

    conversation_id: str | None = None
    ref: str | None = None


class Encoding(Protocol):
    """A way to live clients, as bytes. `event`, `ready` and `gap` are encoded up to their cursor, which is all that
    differs between watchers: `finish` adds it, or closes without one (b"")."""

    name: str
    separator: bytes
    preamble: bytes
    heartbeat: bytes

    def event(self, event_type: str, payload: bytes) -> bytes:
        """An event that has a seq. The payload is not parsed."""

    def ephemeral(self, event_type: str, payload: bytes) -> bytes:
        """An event without one, whole."""

    def ready(self, subscription: Subscription, *, after_seq: int | None, is_resumed: bool) -> bytes:
        """What comes first: from here on (for one conversation, after a seq) everything is told."""

    def gap(self, conversation_id: str | None, after_seq: int | None, next_seq: int | None, reason: str) -> bytes:
        """What came after `after_seq`, up to `next_seq`, is not proven to be told here."""

    def finish(self, encoded: bytes, cursor: bytes) -> bytes:
        """The whole. The cursor has no line ends."""

    def goodbye(self, reason: str, reconnect_in_ms: int | None) -> bytes:
        """What comes last, whole. Without `reconnect_in_ms` coming back is in vain."""


@dataclass(slots=True)
class LiveEvent:
    """One event for all who watch its conversation. `subject` is the user who left, or whom an ephemeral event is
    about, if there is one; `sending` tells its way if its trace is sampled."""

    event_type: str
    payload: bytes
    seq: int
    subject: str | None = None
    sending: Sending | None = None
    _encoded: dict[Encoding, bytes] = field(default_factory=dict)

    def encoded(self, encoding: Encoding) -> bytes:
        """The event for one way: up to its cursor, or whole if it has no seq."""
        found = self._encoded.get(encoding)
        if found is None:
            encode = encoding.event if self.seq else encoding.ephemeral
            found = self._encoded[encoding] = encode(self.event_type, self.payload)
        return found
