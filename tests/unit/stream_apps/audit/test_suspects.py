"""Suspects: a fault counts once it has lasted."""

from __future__ import annotations

from dataclasses import replace

from stream_apps.audit.checker import Fault, Kind, Place
from stream_apps.audit.suspects import Suspects

LATE = Fault(Place.REDIS, Kind.MISSING, "one", 5, "the table is at 4")
WRONG = Fault(Place.REDIS, Kind.ALTERED, "two", 7, "the payload is not the stored text")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def make() -> tuple[Suspects, Clock]:
    clock = Clock()
    return Suspects(lambda fault: 20.0 if fault.kind is Kind.MISSING else 3.0, clock=clock), clock


def test_a_fault_counts_after_its_own_time_and_once() -> None:
    suspects, clock = make()
    assert suspects.see([LATE, WRONG]) == []
    clock.now = 3
    assert suspects.see([LATE, replace(WRONG, detail="said otherwise")]) == [replace(WRONG, detail="said otherwise")]
    clock.now = 20
    assert suspects.see([LATE, WRONG]) == [LATE]
    clock.now = 40
    assert suspects.see([LATE, WRONG]) == []
    assert len(suspects) == 2


def test_what_is_not_found_again_is_cleared() -> None:
    suspects, clock = make()
    suspects.see([WRONG])
    clock.now = 2
    suspects.see([])
    assert suspects.faults() == []
    clock.now = 4
    assert suspects.see([WRONG]) == []


def test_time_begins_anew_for_what_has_a_known_reason() -> None:
    suspects, clock = make()
    suspects.see([WRONG])
    clock.now = 3
    suspects.excuse([WRONG, LATE])
    assert suspects.see([WRONG]) == []
    clock.now = 6
    assert suspects.see([WRONG]) == [WRONG]


def test_what_was_repaired_is_news_when_it_is_found_again() -> None:
    suspects, clock = make()
    suspects.see([WRONG])
    clock.now = 3
    assert suspects.see([WRONG]) == [WRONG]
    suspects.clear(["two"])
    assert suspects.see([WRONG]) == []
    clock.now = 6
    assert suspects.see([WRONG]) == [WRONG]
