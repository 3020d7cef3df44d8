"""What supervise does about a connector follows from what it sees and remembers. Time is a number here."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.model import ConnectorState, ConnectorStatus, TaskStatus
from connectors.slots import Slot
from connectors.supervise.causes import POLICIES, Cause, Policy, classify, delay_seconds
from connectors.supervise.decision import Action, Decision, Memory, Sight, decide

AWAY = "org.x.ConnectException: x\nCaused by: org.postgresql.util.PSQLException: Connection to db:5432 refused.\n"
HELD = 'org.postgresql.util.PSQLException: ERROR: replication slot "s" is active for PID 17\n'
INVALID = (
    "ConnectException: x\nCaused by: java.lang.IllegalStateException: Unexpected update message received null, fail.\n"
)
LOST = 'PSQLException: ERROR: can no longer get changes from replication slot "s"\n'


def status(connector: str = "RUNNING", task: str | None = "RUNNING", trace: str | None = None) -> ConnectorStatus:
    tasks = (TaskStatus(id=0, state=task, worker_id="w", trace=trace),) if task else ()
    return ConnectorStatus(name="c", connector=ConnectorState(state=connector, worker_id="w"), tasks=tasks)


RUNNING = Sight(status())
PENDING = Sight(status(task="UNASSIGNED"))


def failed(trace: str = AWAY) -> Sight:
    return Sight(status(task="FAILED", trace=trace))


def slot(confirmed_lsn: int = 100, *, lag: int = 0, wal_status: str = "reserved") -> Slot:
    return Slot("s", True, wal_status, confirmed_lsn, lag, lag)


def seen(
    slot_: Slot | None, *, age: float | None = 1.0, sight: Sight = RUNNING, is_passing_over: bool = False
) -> Sight:
    """What is seen of a connector when the database is looked at too."""
    return Sight(
        sight.status,
        is_database_seen=True,
        slot_name="s",
        slot=slot_,
        current_lsn=500,
        heartbeat_age=age,
        heartbeat_seconds=5.0,
        is_passing_over=is_passing_over,
    )


@dataclass
class Course:
    """Looks at a connector second by second."""

    now: float = 1000.0
    memory: Memory = field(default_factory=Memory)
    actions: list[tuple[float, Action]] = field(default_factory=list)

    def see(self, sight: Sight, seconds: float = 1.0, jitter: float = 0.0) -> Decision:
        """What is decided last when this is seen for so long."""
        end = self.now + seconds
        while True:
            decision = decide(sight, self.memory, now=self.now, jitter=jitter)
            self.memory = decision.memory
            if decision.action is not None:
                self.actions.append((self.now, decision.action))
            self.now += 1
            if self.now >= end:
                return decision

    def gaps(self) -> list[float]:
        """Seconds between one action and the next."""
        times = [time for time, _ in self.actions]
        return [later - earlier for earlier, later in pairwise(times)]


def test_what_runs_is_left_alone() -> None:
    course = Course()
    assert course.see(seen(slot()), 600).cause is None
    assert course.actions == []


def test_what_failed_is_restarted_within_seconds_and_then_ever_more_rarely() -> None:
    course = Course()
    course.see(failed(AWAY), 120)
    assert course.actions[0] == (1001.0, Action.RESTART_FAILED)
    assert course.gaps()[:4] == [2, 4, 8, 8]


def test_a_moment_of_running_does_not_reset_the_pauses_and_a_steady_run_does() -> None:
    course = Course()
    course.see(failed(), 20)
    before = len(course.actions)
    course.see(RUNNING, 4)
    course.see(failed(), 20)
    assert course.gaps()[before - 1] >= 8, "the next try comes no sooner for it"
    course.see(RUNNING, 40)
    before = len(course.actions)
    course.see(failed(), 2)
    assert len(course.actions) == before + 1


def test_each_cause_has_pauses_of_its_own() -> None:
    course = Course()
    course.see(failed(AWAY), 60)
    before = len(course.actions)
    course.see(failed(HELD), 2)
    assert len(course.actions) == before + 1


@pytest.mark.parametrize("cause", [cause for cause in Cause if POLICIES[cause].cap_seconds is None])
def test_what_a_restart_cannot_mend_needs_a_person(cause: Cause) -> None:
    assert POLICIES[cause].advice


def test_a_lost_slot_is_left_to_a_person_whatever_connect_says() -> None:
    for sight in (seen(slot(wal_status="lost")), seen(slot(wal_status="lost"), sight=failed()), failed(LOST)):
        course = Course()
        decision = course.see(sight, 300)
        assert (decision.cause, bool(decision.advice), course.actions) == (Cause.slot_lost, True, [])


def test_a_slot_that_is_not_there_is_left_to_a_person() -> None:
    course = Course()
    assert course.see(seen(None, sight=failed()), 300).cause is Cause.slot_missing
    assert course.actions == []


def test_a_connector_that_connect_does_not_hold_is_told_after_a_while_and_not_made() -> None:
    course = Course()
    assert course.see(Sight(None), 30).cause is None
    assert course.see(Sight(None), 60).cause is Cause.not_there
    assert course.actions == []


@pytest.mark.parametrize("state", ["PAUSED", "STOPPED"])
def test_what_somebody_halted_is_left_alone(state: str) -> None:
    course = Course()
    halted = Sight(status(connector=state, task=None), is_database_seen=True, slot_name="s", slot=None)
    assert course.see(halted, 600).cause is None
    assert course.actions == []


def test_a_task_that_is_given_to_no_worker_is_restarted_after_a_minute() -> None:
    course = Course()
    course.see(PENDING, 59)
    assert course.actions == []
    course.see(PENDING, 5)
    assert [action for _, action in course.actions] == [Action.RESTART_ALL]


def test_a_rebalance_after_a_failure_is_not_taken_for_health() -> None:
    course = Course()
    course.see(failed(), 2)
    assert course.see(PENDING, 5).cause is Cause.database_away


@pytest.mark.parametrize("sight", [failed("x.Y: what\n"), failed(HELD), seen(slot(100, lag=5))])
def test_what_restarts_do_not_mend_needs_a_person_after_a_while(sight: Sight) -> None:
    course = Course()
    assert course.see(sight, 20).advice is None
    assert course.see(sight, 600).advice
    assert course.see(RUNNING, 60).advice is None


def test_running_without_a_heartbeat_is_restarted_as_a_whole() -> None:
    course = Course()
    decision = course.see(seen(slot(), age=100.0), 30)
    assert (decision.cause, course.actions[0][1]) == (Cause.stalled, Action.RESTART_ALL)
    assert course.actions[0][0] - 1000 >= 15, "a connector that has just started may take its time"


def test_a_slot_that_does_not_move_while_there_is_something_to_read_is_restarted() -> None:
    course = Course()
    course.see(seen(slot(100, lag=10)), 40)
    assert course.actions[0][1] is Action.RESTART_ALL


def test_a_slot_that_moves_or_has_nothing_to_read_is_left_alone() -> None:
    course = Course()
    for second in range(60):
        course.see(seen(slot(100 + second, lag=10_000)))
    course.see(seen(slot(200, lag=0)), 60)
    assert course.actions == []


def test_an_invalid_operation_is_passed_over_and_the_declared_settings_come_back() -> None:
    course = Course()
    course.see(seen(slot(100, lag=400), sight=failed(INVALID)), 2)
    assert [action for _, action in course.actions] == [Action.PASS_OVER]
    course.see(seen(slot(300, lag=200), is_passing_over=True), 5)
    assert len(course.actions) == 1, "what was written before is not all confirmed"
    course.see(seen(slot(500), is_passing_over=True))
    assert course.actions[-1][1] is Action.RESTORE
    course.see(seen(slot(510)))
    assert course.see(seen(slot(520))).cause is None


def test_a_supervise_that_starts_in_the_middle_restores_too() -> None:
    course = Course()
    course.see(seen(slot(100), is_passing_over=True), 3)
    course.see(seen(slot(600), is_passing_over=True))
    assert [action for _, action in course.actions] == [Action.RESTORE]


def test_without_a_database_passing_over_ends_after_a_while() -> None:
    course = Course()
    course.see(Sight(status(), is_passing_over=True), 10)
    assert course.actions == []
    course.see(Sight(status(), is_passing_over=True), 10)
    assert course.actions[0][1] is Action.RESTORE


SIGHTS = st.sampled_from(
    [
        RUNNING,
        PENDING,
        failed(AWAY),
        failed(HELD),
        failed(INVALID),
        failed(LOST),
        failed(""),
        Sight(None),
        Sight(status(connector="PAUSED", task="PAUSED")),
        seen(slot(), age=100.0),
        seen(slot(100, lag=5)),
        seen(None),
        seen(slot(wal_status="lost")),
        seen(slot(), is_passing_over=True),
    ]
)


@settings(deadline=None)
@given(st.lists(st.tuples(SIGHTS, st.integers(1, 90)), max_size=8), st.floats(0, 1))
def test_whatever_happens_it_is_never_busier_than_once_in_half_a_second_and_never_touches_what_is_halted(
    course_of_things: list[tuple[Sight, int]], jitter: float
) -> None:
    course = Course()
    for sight, seconds in course_of_things:
        before = len(course.actions)
        course.see(sight, seconds, jitter)
        is_idle = sight.status is None or sight.status.connector.state == "PAUSED"
        assert not is_idle or len(course.actions) == before
    restarts = [time for time, action in course.actions if action is not Action.RESTORE]
    window = [sum(1 for time in restarts if start <= time < start + 60) for start in restarts]
    assert max(window, default=0) <= 60


@settings(deadline=None)
@given(st.sampled_from([p for p in POLICIES.values() if p.cap_seconds]), st.integers(0, 10_000), st.floats(0, 1))
def test_a_pause_is_never_longer_than_its_cap_nor_shorter_than_half(
    policy: Policy, attempts: int, jitter: float
) -> None:
    delay = delay_seconds(policy, attempts, jitter)
    assert delay is not None
    assert policy.first_seconds / 2 <= delay <= (policy.cap_seconds or 0)


@pytest.mark.parametrize("trace", [None, "", "java.lang.IllegalStateException: what\n"])
def test_a_trace_that_says_nothing_has_an_unknown_cause_which_is_retried(trace: str | None) -> None:
    assert classify(trace) is Cause.unknown
    assert POLICIES[Cause.unknown].cap_seconds
