"""What admission answers those whom it does not let in."""

from __future__ import annotations

from schemas.problems import ProblemError

LONGEST_RETRY_SECONDS = 5


class Overloaded(ProblemError):
    """More comes in than can be taken now; nothing was stored. Wait for `Retry-After`, then repeat it."""

    code, title, status = "overloaded", "Overloaded", 503


def overloaded(jitter: float) -> Overloaded:
    """The refusal of who waited in vain. `jitter` (0 to 1) spreads those who come back over LONGEST_RETRY_SECONDS."""
    retry_after = 1 + round((LONGEST_RETRY_SECONDS - 1) * jitter)
    return Overloaded(
        f"More comes in than can be served; nothing was stored. Repeat it in {retry_after} s.",
        headers={"Retry-After": str(retry_after)},
    )


class ShuttingDown(ProblemError):
    """This process is about to end and takes no more requests; nothing was stored. Retry."""

    code, title, status = "shutting-down", "Shutting down", 503

    def __init__(self) -> None:
        super().__init__(
            "This process is about to end; nothing was stored. Try again.",
            headers={"Retry-After": "1", "Connection": "close"},
        )
