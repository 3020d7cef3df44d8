"""What a client says over a WebSocket: the shape of its frames (docs/live.md), and how many it may send. Pure."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from schemas.tokens import MAX_TOKEN_LENGTH

SUBPROTOCOL = "chat4all.v1"
TOKEN_PREFIX = "bearer."  # noqa: S105 - no secret
MAX_FRAME_BYTES = 32 * 1024
MAX_CURSOR_LENGTH = 16_000
MAX_SEQ = 2**62
FRAMES_PER_SECOND = 20.0
FRAMES_AT_ONCE = 100.0


class MalformedFrame(ValueError):
    """This is not a frame of the protocol; the text says what is wrong with it."""


class Frame(BaseModel):
    """What every frame of a client may carry."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ref: str | None = Field(default=None, max_length=64)


class Authenticate(Frame):
    """This is who I am; or, again: this is my newer token."""

    type: Literal["authenticate"]
    token: str = Field(max_length=MAX_TOKEN_LENGTH, repr=False)


class Subscribe(Frame):
    """Tell me of one conversation, after a seq; or of all of them, after a cursor."""

    type: Literal["subscribe"]
    conversation_id: UUID | None = None
    after_seq: int | None = Field(default=None, ge=0, lt=MAX_SEQ)
    cursor: str | None = Field(default=None, max_length=MAX_CURSOR_LENGTH)

    @model_validator(mode="after")
    def _has_one_position(self) -> Subscribe:
        if self.conversation_id is None and self.after_seq is not None:
            raise ValueError("after_seq needs a conversation_id; all conversations are resumed by a cursor")
        if self.conversation_id is not None and self.cursor is not None:
            raise ValueError("one conversation is resumed by after_seq, not by a cursor")
        return self


class Unsubscribe(Frame):
    """Tell me of this no longer."""

    type: Literal["unsubscribe"]
    conversation_id: UUID | None = None


class TypingFrame(Frame):
    """I am writing."""

    type: Literal["typing"]
    conversation_id: UUID


class Ping(Frame):
    """Are you there?"""

    type: Literal["ping"]


AnyFrame = Authenticate | Subscribe | Unsubscribe | TypingFrame | Ping
_FRAME: TypeAdapter[AnyFrame] = TypeAdapter(Annotated[AnyFrame, Field(discriminator="type")])


def parse_frame(text: str) -> AnyFrame:
    """The frame in a client's text. Raises MalformedFrame, whose sentence repeats nothing of the text."""
    try:
        return _FRAME.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        path = ".".join(str(part) for part in first["loc"])
        raise MalformedFrame(f"{path}: {first['msg']}" if path else first["msg"]) from None


class FrameBudget:
    """A token bucket: how many frames a client may send."""

    def __init__(self, *, now: float) -> None:
        self._left = FRAMES_AT_ONCE
        self._at = now

    def take(self, *, now: float) -> bool:
        """Whether one more frame is within the budget."""
        self._left = min(FRAMES_AT_ONCE, self._left + (now - self._at) * FRAMES_PER_SECOND)
        self._at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


def token_in(subprotocols: list[str]) -> str | None:
    """The access token among the offered subprotocols, or None."""
    for offered in subprotocols:
        if offered.startswith(TOKEN_PREFIX):
            return offered.removeprefix(TOKEN_PREFIX)
    return None


def is_origin_allowed(origin: str | None, host: str | None, allowed: frozenset[str]) -> bool:
    """Whether a page of this origin (RFC 6454) may connect: one of the address that it calls, or one of a list. Who
    sends no origin is no browser."""
    if origin is None or origin in allowed:
        return True
    scheme, separator, authority = origin.partition("://")
    return bool(separator) and scheme in {"http", "https"} and authority.lower() == (host or "").lower()
