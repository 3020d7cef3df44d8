"""What becomes of a conversation whose records cannot be applied just now."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Gauge

from stream_apps import parking
from stream_apps.parking import Attendant, Left, ParkingLot, when_all_settled
from stream_apps.records import Record


class PlainRecord(NamedTuple):
    """A record that only its origin tells."""

    offset: int
    topic: str = "conversation.events"
    partition: int = 0
    timestamp: int = 0
    key: bytes | None = None
    value: bytes | None = None
    headers: Sequence[tuple[str, bytes | None]] = ()


class Away(Exception):
    """Something is away."""


@dataclass
class KeptDesk:
    """Applies what it is told to, after so many failures; keeps what came of it."""

    failures: dict[str, list[Exception | str]] = field(default_factory=dict)
    applied: list[tuple[str, list[int]]] = field(default_factory=list)
    given_up: list[tuple[list[int], str]] = field(default_factory=list)

    async def apply_one(self, conversation_id: str, records: Sequence[Record]) -> Left | None:
        if self.failures.get(conversation_id):
            failure = self.failures[conversation_id].pop(0)
            if isinstance(failure, Exception):
                raise failure
            return Left(records, failure)
        self.applied.append((conversation_id, [record.offset for record in records]))
        return None

    async def give_up(self, records: Sequence[Record], reason: str) -> None:
        self.given_up.append(([record.offset for record in records], reason))


class Yard:
    """A lot with a clock that the test turns."""

    def __init__(self, seconds: float = 10) -> None:
        self.now = 0.0
        self.gauge = Gauge("parked", "Parked conversations.", registry=CollectorRegistry())
        self.lot = ParkingLot(
            seconds,
            conversations=self.gauge,
            is_passing=lambda error: isinstance(error, Away),
            clock=lambda: self.now,
        )
        self.desk = KeptDesk()

    async def wait(self, seconds: float) -> None:
        """Time passes, and the attendant looks ten times a second."""
        for _ in range(round(seconds / 0.1)):
            self.now += 0.1
            await self.lot.attend(self.desk)


@pytest.fixture
async def yard() -> Yard:
    return Yard()


async def test_a_parked_conversation_goes_on_when_it_can(yard: Yard) -> None:
    yard.desk.failures["a"] = ["not yet", "not yet"]
    settled = yard.lot.park("a", Left([PlainRecord(1)], "a gap"))
    assert ("a" in yard.lot, yard.gauge._value.get()) == (True, 1)
    await yard.wait(3)
    assert settled.done()
    assert ("a" in yard.lot, yard.gauge._value.get()) == (False, 0)
    assert (yard.desk.applied, yard.desk.given_up) == ([("a", [1])], [])


async def test_what_comes_while_it_waits_is_applied_behind_the_rest(yard: Yard) -> None:
    first = yard.lot.park("a", Left([PlainRecord(1)], "a gap"))
    second = yard.lot.park("a", Left([PlainRecord(2), PlainRecord(3)], "a gap"))
    await yard.wait(1)
    assert first is second
    assert yard.desk.applied == [("a", [1, 2, 3])]


async def test_what_comes_while_it_is_applied_is_not_forgotten(yard: Yard) -> None:
    class Slow(KeptDesk):
        async def apply_one(self, conversation_id: str, records: Sequence[Record]) -> Left | None:
            left = await super().apply_one(conversation_id, records)
            if len(self.applied) == 1:
                yard.lot.park("a", Left([PlainRecord(2)], "a gap"))
            return left

    yard.desk = Slow()
    settled = yard.lot.park("a", Left([PlainRecord(1)], "a gap"))
    await yard.wait(1)
    assert yard.desk.applied == [("a", [1]), ("a", [2])]
    assert settled.done()


async def test_a_batch_that_is_retried_parks_its_records_once(yard: Yard) -> None:
    for _ in range(3):
        yard.lot.park("a", Left([PlainRecord(1), PlainRecord(2)], "a gap"))
    await yard.wait(1)
    assert yard.desk.applied == [("a", [1, 2])]


async def test_after_a_while_its_records_are_set_aside_with_the_latest_reason(yard: Yard) -> None:
    yard.desk.failures["a"] = [f"try {number}" for number in range(100)]
    settled = yard.lot.park("a", Left([PlainRecord(1), PlainRecord(2)], "a gap"))
    await yard.wait(9)
    assert yard.desk.given_up == []
    await yard.wait(6)
    (given_up,) = yard.desk.given_up
    assert given_up[0] == [1, 2]
    assert given_up[1].startswith("try ")
    assert settled.done()
    assert "a" not in yard.lot, "its next record is tried like any other"


async def test_only_what_is_left_is_set_aside(yard: Yard) -> None:
    class Picky(KeptDesk):
        async def apply_one(self, conversation_id: str, records: Sequence[Record]) -> Left | None:
            return Left([record for record in records if record.offset == 2], "a gap")

    yard.desk = Picky()
    settled = yard.lot.park("a", Left([PlainRecord(1), PlainRecord(2), PlainRecord(3)], "a gap"))
    await yard.wait(20)
    assert yard.desk.given_up == [([2], "a gap")]
    assert settled.done()


async def test_while_something_is_away_nobody_is_given_up(yard: Yard) -> None:
    yard.desk.failures["a"] = [Away() for _ in range(50)]
    yard.lot.park("a", Left([PlainRecord(1)], "a gap"))
    await yard.wait(200)
    assert (yard.desk.applied, yard.desk.given_up) == ([("a", [1])], [])


async def test_one_conversation_waits_for_no_other(yard: Yard) -> None:
    yard.desk.failures["a"] = ["never" for _ in range(100)]
    yard.lot.park("a", Left([PlainRecord(1)], "a gap"))
    settled = yard.lot.park("b", Left([PlainRecord(2)], "a gap"))
    await yard.wait(0.5)
    assert settled.done()
    assert "a" in yard.lot


async def test_what_is_parked_is_bounded(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parking, "PARKED_RECORDS", 3)
    yard.desk.failures = {name: ["never" for _ in range(100)] for name in "ab"}
    yard.lot.park("a", Left([PlainRecord(1), PlainRecord(2)], "a gap"))
    yard.lot.park("b", Left([PlainRecord(3), PlainRecord(4)], "a gap"))
    await yard.wait(0.1)
    assert yard.desk.given_up == [([1, 2], "never")], "who has been here longest goes first"
    assert "b" in yard.lot


async def test_what_is_cleared_will_come_again(yard: Yard) -> None:
    settled = yard.lot.park("a", Left([PlainRecord(1)], "a gap"))
    yard.lot.clear()
    assert settled.cancelled()
    assert "a" not in yard.lot
    await yard.wait(1)
    assert yard.desk.applied == []


async def test_what_is_cleared_while_it_is_applied_is_not_settled(yard: Yard) -> None:
    class Interrupted(KeptDesk):
        async def apply_one(self, conversation_id: str, records: Sequence[Record]) -> Left | None:
            yard.lot.clear()
            return None

    yard.desk = Interrupted()
    settled = yard.lot.park("a", Left([PlainRecord(1)], "a gap"))
    await yard.wait(1)
    assert settled.cancelled()


async def test_an_attendant_sees_to_the_lot_and_tells_what_fails(yard: Yard) -> None:
    failed: list[Exception] = []
    excused: list[int] = []
    yard.desk.failures["a"] = [ValueError("a bug")]
    attendant = Attendant(yard.lot, yard.desk, excuse=lambda: excused.append(1), on_error=failed.append)
    await attendant.open()
    settled = yard.lot.park("a", Left([PlainRecord(1)], "a gap"))
    yard.now = 1.0
    async with asyncio.timeout(5):
        await settled
    await attendant.close()
    assert [str(error) for error in failed] == ["a bug"]
    assert excused


@given(st.lists(st.booleans(), min_size=1, max_size=5))
async def test_a_batch_is_settled_when_all_of_it_is(are_settled: list[bool]) -> None:
    futures = [asyncio.get_running_loop().create_future() for _ in are_settled]
    called: list[int] = []
    when_all_settled(futures, lambda: called.append(1))
    for future, is_settled in zip(futures, are_settled, strict=True):
        assert not called
        if is_settled:
            future.set_result(None)
        else:
            future.cancel()
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(called) == all(are_settled)
