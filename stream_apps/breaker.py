"""A circuit breaker: after a failure it lets one caller try per interval, so the others need not wait in vain."""

from __future__ import annotations

import time
from collections.abc import Callable


class Breaker:
    """Closed at first. Opens at a failure, closes at a success. `retry_seconds` apart, one caller may try."""

    def __init__(self, *, retry_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._retry_seconds = retry_seconds
        self._clock = clock
        self._next_try_at: float | None = None

    def may_try(self) -> bool:
        """Whether the caller should try; it then says how that went."""
        if self._next_try_at is None:
            return True
        now = self._clock()
        if now < self._next_try_at:
            return False
        self._next_try_at = now + self._retry_seconds
        return True

    def failed(self) -> None:
        """The try failed."""
        self._next_try_at = self._clock() + self._retry_seconds

    def succeeded(self) -> None:
        """The try succeeded."""
        self._next_try_at = None
