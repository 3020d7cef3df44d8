"""The search for the highest rate that is carried, and what is said about it."""

from __future__ import annotations

from collections import Counter
from typing import Any

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
    best = highest_carried([describe(step) for step in steps])
    assert best is not None
    assert best["rate_per_second"] <= limit <= best["rate_per_second"] * 1.1
    assert len(steps) < 30


async def test_the_search_doubles_first_and_halves_the_distance_then() -> None:
    tried = [step.rate for step in await search(250.0, first=100.0)]
    assert tried == [100, 200, 400, 400, 300, 300, 250, 275, 275]


async def test_a_rate_that_fails_once_may_be_carried() -> None:
    tries: Counter[float] = Counter()

    async def measure(rate: float) -> Step:
        tries[rate] += 1
        return step(rate, p99_ms=10.0 if rate <= 200 and tries[rate] > 1 else 500.0)

    best = highest_carried([describe(step) for step in await find_highest(measure, first=100.0)])
    assert best is not None
    assert best["rate_per_second"] == 200


async def test_a_system_that_carries_nothing_and_one_that_carries_all_end_the_search() -> None:
    assert highest_carried([describe(step) for step in await search(0.0, first=100.0)]) is None
    best = highest_carried([describe(step) for step in await search(float("inf"), first=100.0)])
    assert best is not None
    assert best["rate_per_second"] >= 65_536


def test_a_rate_is_carried_if_all_was_accepted_soon_received_and_nothing_piled_up() -> None:
    assert step(1000).is_carried
    assert step(1000, p99_ms=50.0, lag_growth=1500).is_carried
    assert not step(1000, p99_ms=50.1).is_carried
    assert not step(1000, lag_growth=1501).is_carried
    assert not step(1000, accepted_share=0.999).is_carried


def tried(rate: float, **cpu_percent: float) -> dict[str, Any]:
    return describe(Step(rate, 1.0, 10.0, 0, {**cpu_percent, "generator": 10.0}))


def test_cores_come_first_if_they_are_full_before_a_program_has_filled_its_own() -> None:
    steps = [tried(100, timeline=20.0, postgres=30.0, kafka=10.0), tried(200, timeline=30.0, postgres=50.0, kafka=15.0)]
    assert advise(steps, steps[1], cores=2) == [
        "All programs together take 105 of 200 percent at 200 messages/s, the generator 10 of them.",
        "From 100 to 200/s they take 0.35 percent of a core more per message/s; if that goes on, the cores are full"
        " near 471/s, and the first program that uses one core at most, timeline, near 900/s.",
        "So cores come first, or machines of their own for what grows most: postgres (0.200), timeline (0.100), kafka"
        " (0.050).",
    ]


def test_a_second_process_comes_first_if_one_core_is_full_before_all_are() -> None:
    steps = [tried(100, timeline=20.0), tried(200, timeline=50.0)]
    assert advise(steps, steps[0], cores=8)[-1] == "So a second process of timeline comes first."


def test_from_one_rate_nothing_is_foretold() -> None:
    assert len(advise([tried(100, timeline=20.0)] * 2, tried(100, timeline=20.0), cores=2)) == 1


def test_the_page_has_the_highest_rate_and_what_a_message_costs_each_program() -> None:
    found = {"batch_size": 1, "steps": [describe(step(400)), describe(step(800, p99_ms=90.0))]}
    nothing = {"batch_size": 10, "steps": [describe(step(1, p99_ms=90.0))]}
    page = render({"p99_milliseconds": 50.0, "step_seconds": 10.0, "cores": 2, "single": found, "batch": nothing})
    assert "Single posts: **400 messages/s**. Tried: 400/s 10 ms, 800/s 90 ms ✗." in page
    assert "| ingest-api | 40.0 | 1000 |" in page
    assert "Batches of 10: no rate was carried. Tried: 1/s 90 ms ✗." in page
