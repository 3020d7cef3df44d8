"""The buckets that the API's processes share: Redis keys `ratelimit:<limit>:<subject>`, behind a circuit breaker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from importlib.resources import files
from typing import Any, NamedTuple, Protocol

from circuitbreaker import CircuitBreaker
from redis.asyncio import Redis
from redis.exceptions import RedisError

logger = logging.getLogger(__name__)

KEY_PREFIX = "ratelimit:"
_ADD = (files("ingest_api.limits") / "add.lua").read_text(encoding="utf-8")


class Addition(NamedTuple):
    """`seconds` of draining to be added to a bucket."""

    limit: str
    subject: str
    seconds: float


class SharedBuckets(Protocol):
    """Buckets outside of this process."""

    async def add(self, additions: Sequence[Addition], *, is_probe: bool = False) -> list[float] | None:
        """Seconds that each bucket takes to empty now; None when they cannot be had. A probe also tries when the
        last ones failed. Never raises."""

    async def close(self) -> None:
        """Gives back what it holds."""


class RedisBuckets:
    """Buckets in Redis: one call of a script per `add`, and at most `timeout_seconds` of waiting for it."""

    def __init__(self, redis: Redis, *, timeout_seconds: float, retry_seconds: float) -> None:
        self._redis = redis
        self._add = redis.register_script(_ADD)
        self._timeout_seconds = timeout_seconds
        self._breaker: Any = CircuitBreaker(
            failure_threshold=1,
            recovery_timeout=retry_seconds,
            expected_exception=(RedisError, OSError, TimeoutError),
            name="ratelimit",
        )

    @property
    def is_away(self) -> bool:
        """Whether the circuit breaker keeps requests from asking Redis."""
        return not self._breaker.closed

    async def add(self, additions: Sequence[Addition], *, is_probe: bool = False) -> list[float] | None:
        # Half open, one probe in the background finds out; requests do not wait for what may time out.
        if self._breaker.opened or (self.is_away and not is_probe):
            return None
        was_away = self.is_away
        keys = [f"{KEY_PREFIX}{limit}:{subject}" for limit, subject, _ in additions]
        try:
            with self._breaker:
                async with asyncio.timeout(self._timeout_seconds):
                    levels = await self._add(keys=keys, args=[int(item.seconds * 1e6) for item in additions])
        except (RedisError, OSError, TimeoutError) as error:
            if not was_away:
                logger.warning("Redis does not answer; rate limits are each process's own until it does: %r", error)
            return None
        if was_away:
            logger.info("Redis answers again; rate limits are shared")
        return [level / 1e6 for level in levels]

    async def close(self) -> None:
        await self._redis.aclose()


class NoSharedBuckets:
    """Where there is one process, or Redis is not used: it knows its own buckets."""

    is_away = False

    async def add(self, additions: Sequence[Addition], *, is_probe: bool = False) -> list[float] | None:
        return None

    async def close(self) -> None:
        """Holds nothing."""
