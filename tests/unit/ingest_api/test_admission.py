"""The ladder: every step, its hysteresis, its recovery; what is shed at each; the lag in seconds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from ingest_api.admission.ladder import AdmissionMetrics, Ladder
from ingest_api.admission.model import (
    RETRY_SECONDS,
    AdmissionState,
    LagClock,
    Reading,
    RequestClass,
    SlotSample,
    Thresholds,
    next_state,
)
from ingest_api.admission.refusals import Overloaded

GREEN, YELLOW, ORANGE, RED, LOST = AdmissionState
LIMIT = 1000


def slot(share: float = 0.0, *, seconds: float = 0.0, status: str | None = "reserved") -> SlotSample:
    """A slot that uses this share of the room for its WAL."""
    held = round(share * LIMIT)
    return SlotSample(status, held, LIMIT - held, LIMIT, seconds)


def climb(*readings: Reading) -> list[AdmissionState]:
    """The state after each reading, from green."""
    states = [GREEN]
    for reading in readings:
        states.append(next_state(states[-1], reading, Thresholds()))
    return states[1:]


def test_the_slot_climbs_every_step_and_comes_down_by_each_lower_threshold() -> None:
    shares = [0.49, 0.50, 0.69, 0.70, 0.84, 0.85, 0.80, 0.75, 0.74, 0.60, 0.59, 0.40, 0.39]
    assert climb(*(Reading(slot(share), 0) for share in shares)) == [
        GREEN, YELLOW, YELLOW, ORANGE, ORANGE, RED, RED, RED, ORANGE, ORANGE, YELLOW, YELLOW, GREEN
    ]  # fmt: skip


def test_the_queue_climbs_every_step_and_comes_down() -> None:
    shares = [0.4, 0.5, 0.75, 0.95, 0.7, 0.69, 0.49, 0.25, 0.24]
    assert climb(*(Reading(None, share) for share in shares)) == [
        GREEN, YELLOW, ORANGE, RED, RED, ORANGE, YELLOW, YELLOW, GREEN
    ]  # fmt: skip


def test_time_alone_refuses_batches_and_never_writes() -> None:
    assert climb(Reading(slot(seconds=299), 0), Reading(slot(seconds=1e7), 0), Reading(slot(seconds=59), 0)) == [
        GREEN,
        YELLOW,
        GREEN,
    ]


@pytest.mark.parametrize("status", ["lost", None])
def test_a_slot_that_is_lost_or_missing_stops_writes_until_it_is_made_anew(status: str | None) -> None:
    assert climb(Reading(slot(status=status), 0), Reading(slot(0.01), 0)) == [LOST, GREEN]


def test_a_slot_that_the_next_checkpoint_may_break_is_red_whatever_the_thresholds_say() -> None:
    assert climb(Reading(slot(0.1, status="unreserved"), 0)) == [RED]


def test_without_a_limit_in_postgresql_the_budget_counts() -> None:
    assert climb(Reading(SlotSample("reserved", 900, None, LIMIT, 0), 0)) == [RED]


def test_a_slot_past_its_limit_is_red() -> None:
    assert climb(Reading(SlotSample("extended", LIMIT + 50, -50, LIMIT, 0), 0)) == [RED]


@given(
    start=st.sampled_from([GREEN, YELLOW, ORANGE, RED]),
    step=st.sampled_from([0, 1, 2]),
    positions=st.lists(st.floats(0, 0.999), min_size=1, max_size=50),
    signal=st.sampled_from(["slot", "queue"]),
)
def test_within_a_band_the_state_never_flaps(
    start: AdmissionState, step: int, positions: list[float], signal: str
) -> None:
    thresholds = Thresholds()
    band = (thresholds.slot_bytes if signal == "slot" else thresholds.queue)[step]
    state, states = start, []
    for position in positions:
        share = band.leave + position * (band.enter - band.leave)
        sample = SlotSample("reserved", int(share * 10**9), None, 10**9, 0)
        # Just above `leave` and below `enter`: rounding must not put it outside of the band.
        reading = Reading(sample._replace(held_bytes=sample.held_bytes + 1), 0) if signal == "slot" else None
        state = next_state(state, reading or Reading(None, share), thresholds)
        states.append(state)
    assert len({held > step for held in states}) == 1


@given(
    st.lists(st.tuples(st.floats(0, 1.2), st.floats(0, 1000), st.floats(0, 1)), max_size=30), st.sampled_from([0, 0.01])
)
def test_whatever_has_happened_rest_brings_back_green(history: list[tuple[float, float, float]], rest: float) -> None:
    readings = [Reading(slot(share, seconds=seconds), queue) for share, seconds, queue in history]
    assert climb(*readings, Reading(slot(rest), rest))[-1] is GREEN


@given(st.floats(0, 1.2), st.floats(0, 1.2))
def test_more_lag_never_leads_to_a_lower_step(one: float, other: float) -> None:
    less, more = sorted((one, other))
    for state in (GREEN, YELLOW, ORANGE, RED):
        below, above = (next_state(state, Reading(slot(share), 0), Thresholds()) for share in (less, more))
        assert below <= above


def make_ladder() -> tuple[Ladder, CollectorRegistry]:
    registry = CollectorRegistry()
    return Ladder(Thresholds(), AdmissionMetrics(registry)), registry


def taken(ladder: Ladder, request_class: RequestClass, count: int = 100) -> int:
    """How many of so many requests are taken."""
    passed = 0
    for _ in range(count):
        try:
            ladder.check(request_class)
        except Overloaded:
            continue
        passed += 1
    return passed


@pytest.mark.parametrize(
    ("share", "state", "batch", "send", "command", "login"),
    [
        (0.0, GREEN, 100, 100, 100, 100),
        (0.5, YELLOW, 0, 100, 100, 100),
        (0.7, ORANGE, 0, 50, 50, 100),
        (0.9, RED, 0, 0, 0, 100),
    ],
)
def test_each_step_sheds_by_class(
    share: float, state: AdmissionState, batch: int, send: int, command: int, login: int
) -> None:
    ladder, registry = make_ladder()
    ladder.see_slot(slot(share))
    assert ladder.state is state
    found = [taken(ladder, request_class) for request_class in RequestClass]
    assert found == [batch, send, command, login]
    assert registry.get_sample_value("ingest_api_admission_state") == state
    refused = sum(
        registry.get_sample_value(
            "ingest_api_admission_refused_total", {"request_class": kind, "state": state.name.lower()}
        )
        or 0
        for kind in RequestClass
    )
    assert refused == 400 - sum(found)


def test_a_lost_slot_still_lets_readers_log_in() -> None:
    ladder, _ = make_ladder()
    ladder.see_slot(slot(status="lost"))
    assert [taken(ladder, kind) for kind in RequestClass] == [0, 0, 0, 100]


def test_those_who_are_refused_are_told_different_times_within_bounds() -> None:
    ladder, _ = make_ladder()
    ladder.see_slot(slot(0.9))
    waits = set()
    for _ in range(200):
        with pytest.raises(Overloaded) as refused:
            ladder.check(RequestClass.SEND)
        waits.add(int(refused.value.headers["Retry-After"]))
    least, most = RETRY_SECONDS[RED]
    assert len(waits) > 5
    assert least <= min(waits) <= max(waits) <= most


def test_the_lag_is_the_age_of_the_oldest_position_that_is_not_confirmed() -> None:
    clock = LagClock()
    assert clock.lag_seconds(0, current_lsn=100, confirmed_lsn=100) == 0
    assert clock.lag_seconds(10, current_lsn=200, confirmed_lsn=100) == 0
    assert clock.lag_seconds(15, current_lsn=300, confirmed_lsn=100) == 5
    assert clock.lag_seconds(20, current_lsn=300, confirmed_lsn=250) == 5
    assert clock.lag_seconds(90, current_lsn=300, confirmed_lsn=300) == 0


def test_the_lag_of_a_week_is_told_from_a_bounded_memory() -> None:
    clock = LagClock()
    for second in range(20_000):
        lag = clock.lag_seconds(second, current_lsn=second + 1, confirmed_lsn=0)
        assert lag == second
    assert len(clock._seen) <= 7201
