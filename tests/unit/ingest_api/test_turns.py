"""Turns: the oldest first, and nobody waits for ever."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from ingest_api.admission.refusals import Overloaded
from ingest_api.admission.turns import TurnMetrics, Turns


def make(*, limit: int = 1, most_waiting: int = 10, patience_seconds: float = 10) -> tuple[Turns, CollectorRegistry]:
    registry = CollectorRegistry()
    turns = Turns(
        limit=limit,
        most_waiting=most_waiting,
        patience_seconds=patience_seconds,
        metrics=TurnMetrics(registry),
        jitter=lambda: 0.5,
    )
    return turns, registry


async def waiting(turns: Turns, name: str, served: list[str]) -> asyncio.Task[None]:
    async def wait() -> None:
        await turns.wait()
        served.append(name)

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    return task


async def test_the_oldest_is_next() -> None:
    turns, registry = make()
    assert turns.take_now()
    assert not turns.take_now()
    served: list[str] = []
    tasks = [await waiting(turns, name, served) for name in "abcde"]
    assert registry.get_sample_value("ingest_api_commands_waiting") == 5
    for _ in tasks:
        turns.give_back()
        await asyncio.sleep(0)
    assert served == ["a", "b", "c", "d", "e"]
    turns.give_back()
    assert registry.get_sample_value("ingest_api_commands_served") == 0
    assert turns.take_now()


async def test_who_has_waited_long_enough_is_told_when_to_come_back() -> None:
    turns, registry = make(patience_seconds=0.01)
    assert turns.take_now()
    with pytest.raises(Overloaded) as refused:
        await turns.wait()
    assert refused.value.headers == {"Retry-After": "3"}
    assert registry.get_sample_value("ingest_api_commands_refused_total") == 1
    assert registry.get_sample_value("ingest_api_commands_waiting") == 0
    turns.give_back()
    assert turns.take_now()


async def test_no_more_wait_than_may() -> None:
    turns, _ = make(most_waiting=0)
    assert turns.take_now()
    with pytest.raises(Overloaded):
        await turns.wait()


@pytest.mark.parametrize("is_its_turn", [False, True])
async def test_one_that_is_cancelled_takes_nobodys_turn(is_its_turn: bool) -> None:
    turns, registry = make()
    assert turns.take_now()
    served: list[str] = []
    older = await waiting(turns, "older", served)
    newer = await waiting(turns, "newer", served)
    if is_its_turn:
        turns.give_back()
    older.cancel()
    await asyncio.gather(older, return_exceptions=True)
    if not is_its_turn:
        turns.give_back()
    await newer
    assert served == ["newer"]
    turns.give_back()
    assert registry.get_sample_value("ingest_api_commands_served") == 0
