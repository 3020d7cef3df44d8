"""The search for the highest rate that is carried, and what is said about it."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.benchmarks.capacity import Step, advise, describe, find_highest, highest_carried, render


def step(rate: float, *, accepted_share: float = 1.0, p99_ms: float = 10.0, lag_growth: int = 0) -> Step:
    return Step(rate, accepted_share, p99_ms, lag_growth, {"ingest-api": 40.0, "kafka": 30.0, "generator": 20.0})


async def search(limit: float, first: float) -> list[Step]:
    """With a system that carries whatever is not above the limit."""

    async def measure(rate: float) -> Step:
        return step(rate, p99_ms=10.0 if rate <= limit else 500.0)

    return await find_highest(measure, first=first)


@pytest.mark.parametrize("limit", [40.0, 100.0, 730.0, 12_345.0])
async def test_the_highest_rate_is_found_within_a_tenth(limit: float) -> None:
    steps = await search(limit, first=100.0)
    best = highest_carried(steps)
    assert best is not None
    assert best.rate <= limit <= best.rate * 1.1
    assert len(steps) < 30


async def test_the_search_doubles_first_and_halves_the_distance_then() -> None:
    tried = [step.rate for step in await search(250.0, first=100.0)]
    assert tried == [100, 200, 400, 400, 300, 300, 250, 275, 275]


async def test_a_rate_that_fails_once_may_be_carried() -> None:
    tries: Counter[float] = Counter()

    async def measure(rate: float) -> Step:
        tries[rate] += 1
        return step(rate, p99_ms=10.0 if rate <= 200 and tries[rate] > 1 else 500.0)

    best = highest_carried(await find_highest(measure, first=100.0))
    assert best is not None
    assert best.rate == 200


async def test_a_system_that_carries_nothing_and_one_that_carries_all_end_the_search() -> None:
    assert highest_carried(await search(0.0, first=100.0)) is None
    best = highest_carried(await search(float("inf"), first=100.0))
    assert best is not None
    assert best.rate >= 65_536


def test_a_rate_is_carried_if_all_was_accepted_soon_received_and_nothing_piled_up() -> None:
    assert step(1000).is_carried
    assert step(1000, p99_ms=50.0, lag_growth=1500).is_carried
    assert not step(1000, p99_ms=50.1).is_carried
    assert not step(1000, lag_growth=1501).is_carried
    assert not step(1000, accepted_share=0.999).is_carried


def test_a_full_machine_and_the_program_nearest_to_its_end_are_named() -> None:
    sentences = advise({"connect": 60.0, "timeline": 50.0, "ingest-api": 40.0, "generator": 30.0}, 600.0, cores=2)
    assert sentences == [
        "All programs together take 180 of 200 percent at 600 messages/s, the generator 30 of them.",
        "The machine is what ends first: more cores, or connect, which takes most (60 percent), on a machine of its"
        " own.",
        "Of the programs that use one core at most, timeline is nearest to its end: 50 percent of it, so one process"
        " ends near 1200 messages/s; run a second one first.",
    ]
    assert "has time left" in advise({"connect": 10.0, "timeline": 20.0, "generator": 5.0}, 600.0, cores=2)[1]


def test_the_page_has_the_highest_rate_and_what_a_message_costs_each_program() -> None:
    found = {"batch_size": 1, "steps": [describe(step(400)), describe(step(800, p99_ms=90.0))]}
    nothing = {"batch_size": 10, "steps": [describe(step(1, p99_ms=90.0))]}
    page = render({"p99_milliseconds": 50.0, "step_seconds": 10.0, "cores": 2, "single": found, "batch": nothing})
    assert "Single posts: **400 messages/s**. Tried: 400/s 10 ms, 800/s 90 ms ✗." in page
    assert "| ingest-api | 40.0 | 1000 |" in page
    assert "Batches of 10: no rate was carried. Tried: 1/s 90 ms ✗." in page
