"""What may go wrong, as a caller tells it apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class ChatError(Exception):
    """Every error of this package."""


class Refused(ChatError):
    """The server said no. `problem` is its problem document (RFC 9457)."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(f"{status}: {problem.get('detail') or problem.get('title') or 'refused'}")
        self.status = status
        self.problem = problem


class LoggedOut(ChatError):
    """There is no token, or it can no longer be refreshed: log in."""


class Unreachable(ChatError):
    """The server did not answer, or not now; it may later, in `retry_after` seconds if it said so."""

    def __init__(self, detail: str, *, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class NotAccepted(ChatError):
    """A message was not accepted in time. Whether it will have been is unknown: send it again under `message_id`."""

    def __init__(self, message_id: str) -> None:
        super().__init__(f"Message {message_id} was not accepted in time; try again under the same id.")
        self.message_id = message_id
