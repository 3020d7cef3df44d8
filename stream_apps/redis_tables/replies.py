"""What Redis' error replies mean."""

from __future__ import annotations

from redis.exceptions import (
    BusyLoadingError,
    ClusterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)

PASSING_CLASSES = (BusyLoadingError, ClusterDownError, OutOfMemoryError, ReadOnlyError, TryAgainError)
PASSING_CODES = (
    "BUSY",
    "CLUSTERDOWN",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "NOREPLICAS",
    "OOM",
    "READONLY",
    "TRYAGAIN",
)
"""How errors begin that say that Redis cannot take writes just now. redis-py has classes for some of them, and takes
the code off their text; those that a script met and hands on as text have it."""


def is_passing_reply(error: Exception) -> bool:
    """Whether the reply says that Redis cannot take writes just now, so that asking again makes sense."""
    return isinstance(error, PASSING_CLASSES) or (
        isinstance(error, ResponseError) and str(error).startswith(PASSING_CODES)
    )
