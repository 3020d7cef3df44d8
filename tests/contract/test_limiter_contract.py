"""One behaviour of rate limits, whether the buckets are shared over Redis, in memory, or each process's own."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pytest
from redis.asyncio import Redis

from ingest_api.limits.buckets import Limit
from ingest_api.limits.limiter import RateLimited, RateLimiter, Spend
from ingest_api.limits.quotas import Quota
from ingest_api.limits.shared import Addition, NoSharedBuckets, RedisBuckets, SharedBuckets
from tests.integration.servers import Server, start_redis

QUOTA = Quota(80, 3600)  # 45 s a hit: real time does not matter to what is tested


@dataclass
class MemoryBuckets:
    """What add.lua does, in a dictionary."""

    clock: Callable[[], float]
    empty_at: dict[tuple[str, str], float] = field(default_factory=dict)
    calls: int = 0

    async def add(self, additions: Sequence[Addition], *, is_probe: bool = False) -> list[float] | None:
        await asyncio.sleep(0)
        self.calls += 1
        levels = []
        for limit, subject, seconds in additions:
            now = self.clock()
            at = max(now, self.empty_at.get((limit, subject), 0)) + seconds
            self.empty_at[limit, subject] = at
            levels.append(at - now)
        return levels

    async def close(self) -> None:
        """Holds nothing."""


@dataclass
class Clock:
    """Seconds that a test moves."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def redis_server() -> Iterator[Server]:
    with start_redis() as server:
        yield server


@pytest.fixture
async def redis_buckets(redis_server: Server) -> AsyncIterator[RedisBuckets]:
    redis = Redis(port=redis_server.port, password=redis_server.password)
    await redis.flushall()
    buckets = RedisBuckets(redis, timeout_seconds=5, retry_seconds=0.1)
    yield buckets
    await buckets.close()


@pytest.fixture(params=["redis", "memory", "local"])
async def shared(request: pytest.FixtureRequest, redis_buckets: RedisBuckets) -> SharedBuckets:
    kinds: dict[str, SharedBuckets] = {
        "redis": redis_buckets,
        "memory": MemoryBuckets(Clock()),
        "local": NoSharedBuckets(),
    }
    return kinds[request.param]


async def admitted(limiter: RateLimiter, spend: Spend, attempts: int) -> int:
    """How many of so many attempts at once are admitted."""
    answers = await asyncio.gather(*(limiter.admit([spend]) for _ in range(attempts)), return_exceptions=True)
    assert all(answer is None or isinstance(answer, (tuple, RateLimited)) for answer in answers), answers
    return sum(not isinstance(answer, BaseException) for answer in answers)


async def test_a_quota_is_admitted_and_not_one_more(shared: SharedBuckets) -> None:
    limit = Limit("sends", QUOTA)
    limiter = RateLimiter([limit], shared, clock=Clock())
    assert await admitted(limiter, Spend(limit, "alice"), 200) == 80
    assert await admitted(limiter, Spend(limit, "bob"), 20) == 20


async def test_who_is_refused_is_told_when_to_come_back_and_how_it_stands(shared: SharedBuckets) -> None:
    limit, clock = Limit("sends", QUOTA), Clock()
    limiter = RateLimiter([limit], shared, clock=clock)
    remaining = [(await limiter.admit([Spend(limit, "alice")])) for _ in range(80)]
    assert [standing.remaining for standing in remaining if standing] == list(range(79, -1, -1))
    with pytest.raises(RateLimited) as refused:
        await limiter.admit([Spend(limit, "alice")])
    headers = refused.value.headers
    assert int(headers["Retry-After"]) in {44, 45, 46}
    assert (headers["RateLimit-Limit"], headers["RateLimit-Remaining"]) == ("80", "0")
    assert headers["RateLimit-Policy"] == "80;w=3600"
    assert int(headers["RateLimit-Reset"]) == pytest.approx(3600, abs=2)


async def test_two_limits_are_spent_together_or_not_at_all(shared: SharedBuckets) -> None:
    user, conversation = Limit("user", QUOTA), Limit("conversation", Quota(10, 3600))
    limiter = RateLimiter([user, conversation], shared, clock=Clock())
    for _ in range(10):
        await limiter.admit([Spend(user, "alice"), Spend(conversation, "c")])
    with pytest.raises(RateLimited, match="conversation"):
        await limiter.admit([Spend(user, "alice"), Spend(conversation, "c")])
    standing = await limiter.admit([Spend(user, "alice")])
    assert standing is not None
    assert standing.remaining == 69


async def test_what_is_only_checked_is_counted_on_success(shared: SharedBuckets) -> None:
    limit = Limit("conversation", Quota(2, 3600))
    limiter = RateLimiter([limit], shared, clock=Clock())
    spend = Spend(limit, "c", is_checked_only=True)
    for _ in range(5):
        await limiter.admit([spend])
    limiter.count([spend, spend])
    with pytest.raises(RateLimited):
        await limiter.admit([spend])


@pytest.fixture(params=["redis", "memory"])
async def between(request: pytest.FixtureRequest, redis_buckets: RedisBuckets) -> SharedBuckets:
    kinds: dict[str, SharedBuckets] = {"redis": redis_buckets, "memory": MemoryBuckets(Clock())}
    return kinds[request.param]


@pytest.mark.parametrize("processes", [2, 3])
async def test_processes_together_admit_a_quota_and_an_eighth_for_each_other_one(
    between: SharedBuckets, processes: int
) -> None:
    limits = [Limit("sends", QUOTA) for _ in range(processes)]
    limiters = [RateLimiter([limit], between, clock=Clock()) for limit in limits]
    counts = await asyncio.gather(
        *(admitted(limiter, Spend(limit, "alice"), 200) for limiter, limit in zip(limiters, limits, strict=True))
    )
    assert QUOTA.hits <= sum(counts) <= QUOTA.hits + math.ceil((processes - 1) * QUOTA.hits / 8)


async def test_what_one_process_admitted_is_known_to_another_after_sharing(between: SharedBuckets) -> None:
    here, there = Limit("sends", QUOTA), Limit("sends", QUOTA)
    first = RateLimiter([here], between, clock=Clock())
    assert await admitted(first, Spend(here, "alice"), 60) == 60
    await first.share()
    # A process that has not asked yet admits an eighth (10) before it does.
    assert await admitted(RateLimiter([there], between, clock=Clock()), Spend(there, "alice"), 10) == 10
    assert await admitted(RateLimiter([there], between, clock=Clock()), Spend(there, "alice"), 60) == 10


async def test_far_below_a_limit_nothing_is_asked() -> None:
    buckets = MemoryBuckets(Clock())
    limit = Limit("sends", QUOTA)
    limiter = RateLimiter([limit], buckets, clock=Clock())
    assert await admitted(limiter, Spend(limit, "alice"), 10) == 10
    assert buckets.calls == 0
    await limiter.share()
    assert buckets.calls == 1


async def test_time_gives_back_what_was_spent_and_forgets_who_is_quiet() -> None:
    clock = Clock()
    limit = Limit("sends", QUOTA)
    limiter = RateLimiter([limit], NoSharedBuckets(), clock=clock)
    assert await admitted(limiter, Spend(limit, "alice"), 100) == 80
    clock.now += 45 * 10
    assert await admitted(limiter, Spend(limit, "alice"), 100) == 10
    clock.now += 3601
    await limiter.share()
    assert limit.buckets == {}
    assert await admitted(limiter, Spend(limit, "alice"), 100) == 80
