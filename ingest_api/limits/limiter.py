"""The rate limiter: decides in this process, and asks the shared buckets only when they could change the answer.

The guarantee: while Redis answers, N processes together admit at most a quota and (N - 1) eighths of it; while it does
not, each process admits at most a quota. A request far below its limits costs no round trip. (What is only checked
is counted when its request has succeeded, so requests in flight at the same moment come on top.)
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


class RateLimited(ProblemError):
    """Too many requests by this user, in this conversation or from this address; `Retry-After` says when to go on."""

    code, title, status = "rate-limited", "Too many requests", 429


class Spend(NamedTuple):
    """Hits that a request takes from a limit. What is only checked here is counted when it has succeeded."""

    limit: Limit
    subject: str
    hits: int = 1
    is_checked_only: bool = False


class _Waiting(NamedTuple):
    spends: Sequence[Spend]
    answer: asyncio.Future[Standing | None]


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
        self._waiting: list[_Waiting] = []
        self._asking: asyncio.Task[None] | None = None
        self._exchanging = asyncio.Lock()

    async def admit(self, spends: Sequence[Spend]) -> Standing | None:
        """Counts what is spent, all or nothing. The standing is that of the limit with the least left (of the first one
        while all are far from used up). Raises RateLimited."""
        now = self._clock()
        for limit, subject, hits, _ in spends:
            if limit.is_doubtful(subject, hits, now):
                break
        else:
            for limit, subject, hits, is_checked_only in spends:
                if not is_checked_only:
                    limit.count(subject, hits, now)
            first = spends[0]
            return first.limit.stand(first.subject, first.hits if first.is_checked_only else 0, now)
        waiting = _Waiting(spends, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._answer_waiting())
        return await waiting.answer

    def _decide(self, spends: Sequence[Spend], now: float) -> Standing | None:
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

    async def _answer_waiting(self) -> None:
        """Asks the shared buckets for all requests that wait, in one call; while it is under way the next gather."""
        while self._waiting:
            batch, self._waiting = self._waiting, []
            subjects = list(dict.fromkeys((spend.limit, spend.subject) for one in batch for spend in one.spends))
            is_known = await self._exchange(subjects)
            now = self._clock()
            for waiting in batch:
                if waiting.answer.done():  # the request was cancelled
                    continue
                if is_known and _has_used_its_share(waiting.spends):
                    self._waiting.append(waiting)
                    continue
                try:
                    waiting.answer.set_result(self._decide(waiting.spends, now))
                except RateLimited as error:
                    waiting.answer.set_exception(error)

    async def _exchange(self, subjects: Sequence[tuple[Limit, str]], *, is_probe: bool = False) -> bool:
        async with self._exchanging:
            additions = [Addition(limit.name, subject, limit.tell(subject)) for limit, subject in subjects]
            levels = await self._shared.add(additions, is_probe=is_probe)
            now = self._clock()
            for number, (limit, subject) in enumerate(subjects):
                limit.learn(subject, None if levels is None else levels[number], now)
            return levels is not None


def _has_used_its_share(spends: Sequence[Spend]) -> bool:
    """Whether others must be told first of what was admitted since they last were."""
    for limit, subject, hits, _ in spends:
        bucket = limit.buckets.get(subject)
        if bucket is not None and bucket.unshared and bucket.unshared + hits > limit.max_unshared:
            return True
    return False


def refusal(limit: Limit, standing: Standing) -> RateLimited:
    """The error that says when to come back."""
    seconds = max(1, int(-(-standing.wait_seconds // 1)))
    return RateLimited(
        f"The limit {limit.name} of {limit.quota} is used up; go on in {seconds} s.",
        headers={"Retry-After": str(seconds), **headers_of(standing)},
        limit=limit.name,
    )


def raw_headers_of(standing: Standing) -> list[tuple[bytes, bytes]]:
    """The same as ASGI takes them, on the shortest way."""
    return [
        *standing.limit.policy_headers,
        (b"ratelimit-remaining", b"%d" % standing.remaining),
        (b"ratelimit-reset", b"%d" % standing.reset_seconds),
    ]


def headers_of(standing: Standing) -> dict[str, str]:
    """The fields of draft-ietf-httpapi-ratelimit-headers (its draft 06 names them one by one)."""
    quota = standing.limit.quota
    return {
        "RateLimit-Policy": f"{quota.hits};w={quota.seconds}",
        "RateLimit-Limit": str(quota.hits),
        "RateLimit-Remaining": str(standing.remaining),
        "RateLimit-Reset": str(standing.reset_seconds),
    }
