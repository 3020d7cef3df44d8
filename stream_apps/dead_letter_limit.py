"""When to stop setting records aside: not for one record or one conversation, but when something is wrong with the
stream."""

from __future__ import annotations

import time
from collections.abc import Callable

from schemas.ids import MalformedKey, conversation_id_of_key

WINDOW_SECONDS = 3600.0


class TooManyDeadLetters(Exception):
    """Records of more conversations than the limit could not be applied: something is wrong with the stream, not with a
    record."""


class DeadLetterLimit:
    """Counts the conversations that dead letters of the last hour are of; a record that names none counts by itself.
    So one conversation cannot stop the others, however many records of it are set aside."""

    def __init__(
        self, limit: int, *, window_seconds: float = WINDOW_SECONDS, clock: Callable[[], float] = time.time
    ) -> None:
        self.window_seconds = window_seconds
        self._limit = limit
        self._clock = clock
        self._seen: dict[str, float] = {}

    def note(self, name: str, at: float | None = None) -> None:
        """A record of this name was set aside (now, or at a time in seconds since the epoch)."""
        self._seen.pop(name, None)
        self._seen[name] = self._clock() if at is None else at

    def check(self, name: str, said: str) -> None:
        """Raises TooManyDeadLetters if another one of this name would exceed the limit."""
        earliest = self._clock() - self.window_seconds
        self._seen = {other: at for other, at in self._seen.items() if at > earliest}
        if name not in self._seen and len(self._seen) >= self._limit:
            raise TooManyDeadLetters(
                f"records of {len(self._seen)} conversations became dead letters within {self.window_seconds:g} s, and"
                f" another one is to be: {said}"
            )


def name_of(key: bytes | None, topic: str, partition: int, offset: int) -> str:
    """What a record counts as: its conversation, or its origin if its key names none."""
    try:
        return conversation_id_of_key(key or b"")
    except MalformedKey:
        return f"{topic}/{partition}/{offset}"
