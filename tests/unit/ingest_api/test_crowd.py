"""The crowd: who is inside, who is held outside, who comes in next, and who is told to come back."""

from __future__ import annotations

import asyncio

from prometheus_client import CollectorRegistry

from ingest_api.admission.crowd import Crowd
from ingest_api.admission.turns import TurnMetrics


class Connection:
    """One that says what became of it."""

    def __init__(self, name: str, told: list[str]) -> None:
        self.name = name
        self.told = told

    def let_in(self) -> None:
        self.told.append(self.name)

    def refuse(self) -> None:
        self.told.append(f"{self.name} refused")


def make(
    *, served: int = 4, most_held: int = 10, patience_seconds: float = 10.0, fresh_seconds: float = 10.0
) -> tuple[Crowd, CollectorRegistry]:
    registry = CollectorRegistry()
    crowd = Crowd(
        served=served,
        most_held=most_held,
        patience_seconds=patience_seconds,
        fresh_seconds=fresh_seconds,
        metrics=TurnMetrics(registry),
    )
    return crowd, registry


async def test_there_is_no_crowd_until_three_times_as_many_as_are_served_are_inside() -> None:
    crowd, _ = make(served=2)
    assert [crowd.enter() for _ in range(7)] == [True] * 6 + [False]
    crowd.leave()
    assert crowd.enter()


async def test_the_newest_comes_in_when_few_are_left_inside() -> None:
    crowd, registry = make(served=4)
    told: list[str] = []
    while crowd.enter():
        pass
    for name in "abc":
        crowd.hold(Connection(name, told))
    assert registry.get_sample_value("ingest_api_commands_held") == 3
    for _ in range(7):
        crowd.leave()
    assert told == []
    crowd.leave()  # four are inside now
    assert told == ["c"]
    assert not crowd.enter(), "who comes new waits while others do"
    crowd.leave()
    crowd.leave()
    assert told == ["c", "b", "a"]
    assert crowd.enter()


async def test_who_has_waited_long_enough_is_refused_the_oldest_first() -> None:
    crowd, registry = make(served=4, patience_seconds=0.05)
    told: list[str] = []
    while crowd.enter():
        pass
    crowd.hold(Connection("a", told))
    crowd.hold(Connection("b", told))
    async with asyncio.timeout(5):
        while len(told) < 2:
            await asyncio.sleep(0.01)
    assert told == ["a refused", "b refused"]
    assert registry.get_sample_value("ingest_api_commands_refused_total") == 2
    assert registry.get_sample_value("ingest_api_commands_held") == 0


async def test_no_more_are_held_than_may_and_one_that_is_gone_is_not_let_in() -> None:
    crowd, _ = make(served=4, most_held=1)
    told: list[str] = []
    while crowd.enter():
        pass
    gone = Connection("gone", told)
    crowd.hold(gone)
    crowd.hold(Connection("late", told))
    assert told == ["late refused"]
    crowd.forget(gone)
    for _ in range(12):
        crowd.leave()
    assert told == ["late refused"]
    assert crowd.enter()


async def test_those_outside_come_in_although_nobody_leaves() -> None:
    """As when who was let in was gone before its answer."""
    crowd, _ = make(served=4)
    told: list[str] = []
    crowd.hold(Connection("a", told))
    async with asyncio.timeout(5):
        while not told:
            await asyncio.sleep(0.01)
    assert told == ["a"]


async def test_who_is_late_already_comes_in_only_when_nobody_new_comes() -> None:
    crowd, _ = make(served=4, fresh_seconds=0.0)
    told: list[str] = []
    while crowd.enter():
        pass
    crowd.hold(Connection("late", told))
    await asyncio.sleep(0.001)
    for _ in range(8):
        crowd.leave()
    assert told == [], "there is room"
    assert crowd.enter(), "and who comes new has it"
    assert not crowd.enter()
    crowd.leave()
    async with asyncio.timeout(5):
        while not told:
            await asyncio.sleep(0.01)
    assert told == ["late"]
