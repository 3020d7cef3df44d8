"""Timeline workers that come and go all the time, and a Redis that forgets or is away: nothing is lost, doubled or
reordered. Run by `make faults` alone."""

from __future__ import annotations

import asyncio
import time

import pytest

from infra.local.stack import Stack
from tests.faults.timeline_workers import (
    CONVERSATIONS,
    RATE,
    Workers,
    connect_redis,
    loaded,
    wait_until_committed,
    warm_up,
    worst,
)

STORM_SECONDS = 120
AWAY_SECONDS = 15

pytestmark = [pytest.mark.timeout(900), pytest.mark.long]


async def test_a_storm_of_rebalances_loses_nothing(stack: Stack, workers: Workers) -> None:
    """A worker joins or leaves every 5 s."""
    async with loaded(stack, conversations=CONVERSATIONS) as load:
        workers.start("one", is_static=False)
        await warm_up(load)
        sending = asyncio.create_task(load.run(RATE, STORM_SECONDS + 5))
        ended_at = time.monotonic() + STORM_SECONDS
        comers: list[str] = []
        turns = 0
        while time.monotonic() < ended_at:
            turns += 1
            if comers and (len(comers) == 3 or turns % 2 == 0):
                assert await workers.stop(comers.pop(0)) == 0
            else:
                comers.append(f"comer-{turns}")
                workers.start(comers[-1], is_static=turns % 4 == 1)
            await asyncio.sleep(5)
        await sending
        await load.check_tables()
        load.check_heard()
        await wait_until_committed(stack)
    print(f"a join or leave every 5 s for {STORM_SECONDS} s: longest wait {worst(load):.1f} s")


async def test_a_redis_that_forgets_or_is_away_gets_everything_again(stack: Stack, workers: Workers) -> None:
    async with loaded(stack, conversations=CONVERSATIONS) as load:
        for name in ("one", "two"):
            workers.start(name)
        await warm_up(load)
        sending = asyncio.create_task(load.run(RATE, AWAY_SECONDS + 12))
        for _ in range(2):
            await asyncio.sleep(2)
            async with connect_redis(stack) as redis:
                await redis.flushall()
        await asyncio.sleep(1)
        await asyncio.to_thread(stack.stop_program, "redis")
        await asyncio.sleep(AWAY_SECONDS)
        await asyncio.to_thread(stack.start_program, "redis")
        await sending
        await load.run(RATE, 1)  # each conversation gets one more, by which its tables heal
        await load.check_tables()
        load.check_heard(is_whole=False)
        await wait_until_committed(stack)
        assert all(process.poll() is None for process in workers.running.values()), "nobody had to start again"
