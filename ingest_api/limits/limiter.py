"""The rate limiter: decides in this process, and asks the shared buckets only when they could change the answer.

The guarantee: while Redis answers, N processes together admit at most a quota and (N - 1) eighths of it; while it does
not, each process admits at most a quota. A request far below its limits costs no round trip.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from ingest_api.limits.buckets import Limit, Standing
from ingest_api.limits.shared import Addition, SharedBuckets
from schemas.problems import ProblemError

SHARING_CHUNK = 500
_ASK_AGAIN = 3


class RateLimited(ProblemError):
    """Too many requests by this user, in this conversation or from this address; `Retry-After` says when to go on."""

    code, title, status = "rate-limited", "Too many requests", 429


class Spend(NamedTuple):
    """Hits that a request takes from a limit. What is only checked here is counted when it has succeeded."""

    limit: Limit
    subject: str
    hits: int = 1
    is_checked_only: bool = False


class RateLimiter:
    """Limits of this process, shared with the others in the background and where it matters."""

    def __init__(
        self,
        limits: Iterable[Limit],
        shared: SharedBuckets,
        *,
        share_seconds: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = tuple(limits)
        self._shared = shared
        self._share_seconds = share_seconds
        self._clock = clock

    async def admit(self, spends: Sequence[Spend]) -> Standing | None:
        """Counts what is spent, all or nothing. The standing is that of the limit with the least left. Raises
        RateLimited."""
        now = self._clock()
        for limit, subject, hits, _ in spends:
            if limit.is_doubtful(subject, hits, now):
                await self._ask(spends)
                now = self._clock()
                break
        tightest: Standing | None = None
        for limit, subject, hits, _ in spends:
            standing = limit.stand(subject, hits, now)
            if standing.wait_seconds:
                raise refusal(limit, standing)
            if tightest is None or standing.remaining < tightest.remaining:
                tightest = standing
        for limit, subject, hits, is_checked_only in spends:
            if not is_checked_only:
                limit.count(subject, hits, now)
        return tightest

    def count(self, spends: Iterable[Spend]) -> None:
        """Counts what was only checked when the request was admitted."""
        now = self._clock()
        for limit, subject, hits, is_checked_only in spends:
            if is_checked_only:
                limit.count(subject, hits, now)

    async def share(self) -> None:
        """Tells the other processes what this one admitted, and learns what they did."""
        now = self._clock()
        waiting: list[tuple[Limit, str]] = []
        for limit in self._limits:
            limit.forget_empty(now)
            waiting += [(limit, subject) for subject, bucket in limit.buckets.items() if bucket.unshared]
        for start in range(0, len(waiting), SHARING_CHUNK):
            if not await self._exchange(waiting[start : start + SHARING_CHUNK], is_probe=True):
                return
        if not waiting:
            await self._shared.add([], is_probe=True)  # also finds out whether Redis is back

    async def run(self) -> None:
        """Shares at intervals, until cancelled."""
        while True:
            await asyncio.sleep(self._share_seconds)
            await self.share()

    async def _ask(self, spends: Sequence[Spend]) -> None:
        """Brings the buckets of a request up to date. While requests at once take the share that may be unshared, it
        asks again."""
        for _ in range(_ASK_AGAIN):
            if not await self._exchange([(spend.limit, spend.subject) for spend in spends]):
                return
            if all(
                bucket.unshared + spend.hits <= spend.limit.max_unshared
                for spend in spends
                if (bucket := spend.limit.buckets.get(spend.subject)) is not None
            ):
                return

    async def _exchange(self, subjects: Sequence[tuple[Limit, str]], *, is_probe: bool = False) -> bool:
        told: list[int] = []
        for limit, subject in subjects:
            bucket = limit.buckets.get(subject)
            told.append(bucket.unshared if bucket is not None else 0)
            if bucket is not None:
                bucket.unshared = 0  # on its way: another exchange of this moment must not tell it twice
        levels = await self._shared.add(
            [
                Addition(limit.name, subject, hits * limit.seconds_per_hit)
                for (limit, subject), hits in zip(subjects, told, strict=True)
            ],
            is_probe=is_probe,
        )
        now = self._clock()
        if levels is None:
            for (limit, subject), hits in zip(subjects, told, strict=True):
                if hits:
                    limit.untell(subject, hits)
            return False
        for (limit, subject), level in zip(subjects, levels, strict=True):
            limit.learn(subject, level, now)
        return True


def refusal(limit: Limit, standing: Standing) -> RateLimited:
    """The error that says when to come back."""
    seconds = max(1, int(-(-standing.wait_seconds // 1)))
    return RateLimited(
        f"The limit {limit.name} of {standing.quota} is used up; go on in {seconds} s.",
        headers={"Retry-After": str(seconds), **headers_of(standing)},
        limit=limit.name,
    )


def raw_headers_of(standing: Standing) -> list[tuple[bytes, bytes]]:
    """The same as ASGI takes them, on the shortest way."""
    quota = standing.quota
    return [
        (b"ratelimit-policy", b"%d;w=%d" % (quota.hits, quota.seconds)),
        (b"ratelimit-limit", b"%d" % quota.hits),
        (b"ratelimit-remaining", b"%d" % standing.remaining),
        (b"ratelimit-reset", b"%d" % standing.reset_seconds),
    ]


def headers_of(standing: Standing) -> dict[str, str]:
    """The fields of draft-ietf-httpapi-ratelimit-headers (its draft 06 names them one by one)."""
    quota = standing.quota
    return {
        "RateLimit-Policy": f"{quota.hits};w={quota.seconds}",
        "RateLimit-Limit": str(quota.hits),
        "RateLimit-Remaining": str(standing.remaining),
        "RateLimit-Reset": str(standing.reset_seconds),
    }
