"""What the channels app decides without I/O: what a delivery is, when a target is tried again, when it is given up."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

MESSAGES_PER_DELIVERY = 100
BYTES_PER_DELIVERY = 64 * 1024
OPEN_AFTER_FAILURES = 3
FIRST_PAUSE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Target:
    """A user's channel. `secrets` sign, the newest first; they and the address are not for logs."""

    channel_id: str
    user_id: str
    channel: str
    address: str = field(repr=False)
    secrets: tuple[bytes, ...] = field(repr=False)
    is_failing: bool = False


@dataclass(frozen=True, slots=True)
class Message:
    """A message as it is now. `body` is None once it is deleted."""

    message_id: str
    seq: int
    actor_id: str
    actor_name: str | None
    created_at: str
    body: dict[str, Any] | None
    is_edited: bool = False
    size: int = 0
    traceparent: str | None = None

    @property
    def is_deleted(self) -> bool:
        """Whether its sender (or an admin) deleted it."""
        return self.body is None


@dataclass(frozen=True, slots=True)
class Letter:
    """Messages of one conversation, in seq order, for one target. A try that is repeated may carry more of them."""

    conversation_id: str
    title: str | None
    messages: Sequence[Message]


@dataclass(frozen=True, slots=True)
class Delivered:
    """The target has it."""


@dataclass(frozen=True, slots=True)
class TryLater:
    """The target did not take it now. `reason` is a sentence for the target's user; it holds no secret and no message.
    `after_seconds` is what the target asked for."""

    reason: str
    after_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """The target will never take anything: its channel is to be disabled."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unavailable:
    """We cannot send just now, whatever the target: it is tried again, and that is not held against the target."""

    reason: str


Outcome = Delivered | TryLater | Refused | Unavailable


class Adapter(Protocol):
    """Sends over one kind of channel. It raises nothing: what goes wrong is an outcome. It retries nothing: the
    dispatcher does. What it sends may come twice, so it should carry an id that tells so."""

    async def challenge(self, target: Target, code: str) -> Outcome:
        """Sends the code that proves that the user receives what is sent there."""

    async def deliver(self, target: Target, letter: Letter) -> Outcome:
        """Sends messages."""

    async def open(self) -> None: ...
    async def close(self) -> None: ...


def make_message(
    event_id: str, seq: int, actor_id: str, actor_name: str | None, payload: str, change: tuple[str, str] | None
) -> Message:
    """The message of a log entry with its latest change (type and payload), if there is one."""
    stored = json.loads(payload)
    body, is_edited = stored["body"], False
    if change is not None:
        kind, changed = change
        is_edited = kind == "MessageEdited"
        body = json.loads(changed)["body"] if is_edited else None
    return Message(
        message_id=event_id,
        seq=seq,
        actor_id=actor_id,
        actor_name=actor_name,
        created_at=stored["created_at"],
        body=body,
        is_edited=is_edited,
        size=len(payload),
    )


def cut(messages: Sequence[Message]) -> Sequence[Message]:
    """As many of the messages as one letter carries, at least one."""
    size = 0
    for count, message in enumerate(messages):
        size += message.size
        if count and (size > BYTES_PER_DELIVERY or count == MESSAGES_PER_DELIVERY):
            return messages[:count]
    return messages


class Health:
    """Whether a target is to be tried, and when. A round of tries in which none succeeded counts as a failure. After a
    few of them the circuit is open: the target is probed by one try at a time, ever more rarely."""

    def __init__(self, *, longest_pause_seconds: float, random: Callable[[], float], is_failing: bool = False) -> None:
        """`random` gives numbers from 0 to 1. `is_failing`: it failed already before this process knew it."""
        self._longest = longest_pause_seconds
        self._random = random
        self._failures = OPEN_AFTER_FAILURES if is_failing else 0

    @property
    def is_open(self) -> bool:
        """Whether the target is only probed."""
        return self._failures >= OPEN_AFTER_FAILURES

    def note(self, outcomes: Sequence[Outcome]) -> float:
        """Takes a round's outcomes (none: nothing was tried); how many seconds to pause before the next one."""
        if not outcomes or any(isinstance(outcome, Delivered) for outcome in outcomes):
            self._failures = 0
            return 0.0
        self._failures += 1
        pause = min(self._longest, FIRST_PAUSE_SECONDS * 2.0 ** min(self._failures - 1, 30))
        jittered = pause * (0.5 + 0.5 * self._random())
        asked = [outcome.after_seconds or 0.0 for outcome in outcomes if isinstance(outcome, TryLater)]
        return min(self._longest, max([jittered, *asked]))
