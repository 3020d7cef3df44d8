"""What the server tells, as values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class Accepted:
    """A message that is kept. `was_replayed` says that an earlier try had been accepted already."""

    message_id: str
    conversation_id: str
    seq: int
    created_at: str
    was_replayed: bool


@dataclass(frozen=True, slots=True)
class Message:
    """A message as it is now. `body` is None once it is deleted."""

    message_id: str
    conversation_id: str
    seq: int
    actor_id: str
    created_at: str
    body: Mapping[str, Any] | None
    reply_to: str | None
    edited: bool
    deleted: bool

    @property
    def text(self) -> str | None:
        """What a text message says."""
        return None if self.body is None else self.body.get("text")

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Message:
        """From an entry of a page; fields of later versions are passed over."""
        known: dict[str, Any] = {name: fields.get(name) for name in cls.__dataclass_fields__}
        return cls(**known)


@dataclass(frozen=True, slots=True)
class Page:
    """Messages in seq order; `next` is the `after_seq` and `prev` the `before_seq` of the pages beside it."""

    messages: list[Message]
    next: int | None
    prev: int | None


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened. `seq` is None for what is ephemeral: ReceiptAdvanced, Typing, PresenceChanged."""

    type: str
    conversation_id: str
    seq: int | None
    data: Mapping[str, Any]

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Event:
        """From an event as it was stored."""
        return cls(data["type"], data["conversation_id"], data.get("seq"), data)

    @classmethod
    def from_text(cls, text: str) -> Event:
        """Likewise, from its text."""
        return cls.from_json(json.loads(text))


@dataclass(frozen=True, slots=True)
class Gap:
    """What came after `after_seq` in a conversation (None: in any) was not told."""

    type: ClassVar[str] = "gap"

    conversation_id: str | None
    after_seq: int | None
    reason: str
