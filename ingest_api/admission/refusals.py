"""What admission answers those whom it does not let in."""

from __future__ import annotations

from schemas.problems import ProblemError


class Overloaded(ProblemError):
    """More comes in than can be taken now; nothing was stored. Wait for `Retry-After`, then repeat it."""

    code, title, status = "overloaded", "Overloaded", 503


class ShuttingDown(ProblemError):
    """This process is about to end and takes no more requests; nothing was stored. Retry."""

    code, title, status = "shutting-down", "Shutting down", 503

    def __init__(self) -> None:
        super().__init__(
            "This process is about to end; nothing was stored. Try again.",
            headers={"Retry-After": "1", "Connection": "close"},
        )
