"""What is done about one connector, decided from what is seen of it now and what was remembered. Pure: time and chance
are arguments, and doing it is left to others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from connectors.model import ConnectorStatus, Verdict
from connectors.slots import Slot
from connectors.supervise.causes import POLICIES, Cause, classify, delay_seconds

SETTLE_SECONDS = 2.0
"""How long RUNNING must stand to be believed: a task that cannot stream says it before it says FAILED."""
STEADY_SECONDS = 30.0
"""How long a connector must run before its earlier failures no longer count."""
ASSIGN_SECONDS = 60.0
"""How long Connect may take to give a task to a worker, and somebody to apply what is declared."""
FRESH_SECONDS = 15.0
"""How old a heartbeat may be at least, whatever its interval."""
PASS_OVER_SECONDS = 15.0
"""How long a connector runs with invalid operations passed over, where the database does not show when it is past
them."""


class Action(Enum):
    """What is to be done now. PASS_OVER: have the connector log invalid operations on the outbox, which are no events,
    instead of stopping at them. RESTORE: give it its declared settings back after that."""

    RESTART_FAILED = "restart what failed"
    RESTART_ALL = "restart the whole connector"
    PASS_OVER = "pass over invalid operations"  # noqa: S105 - a pass, not a password
    RESTORE = "restore the declared settings"


@dataclass(frozen=True, slots=True)
class Sight:
    """What is seen of one connector. `status` is None when Connect does not hold it. `slot_name` is None for a
    connector without a slot; `slot` is None while it does not exist, and says nothing unless `is_database_seen`.
    Times are in seconds, positions in bytes of the write-ahead log."""

    status: ConnectorStatus | None
    is_database_seen: bool = False
    slot_name: str | None = None
    slot: Slot | None = None
    current_lsn: int = 0
    heartbeat_age: float | None = None
    heartbeat_seconds: float = 0.0
    is_passing_over: bool = False

    @property
    def stale_seconds(self) -> float:
        """From which age a heartbeat, or a slot that does not move, is too old."""
        return max(FRESH_SECONDS, 3 * self.heartbeat_seconds)


@dataclass(frozen=True, slots=True)
class Memory:
    """What is remembered of one connector from one look to the next."""

    attempts: Mapping[Cause, int] = field(default_factory=dict)
    cause: Cause | None = None
    try_at: float | None = None
    running_since: float | None = None
    pending_since: float | None = None
    confirmed_lsn: int = -1
    confirmed_at: float = 0.0
    pass_over_until_lsn: int | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What to remember, what to do, and what is wrong (None: nothing). `detail` is what the trace says."""

    memory: Memory
    action: Action | None = None
    cause: Cause | None = None
    detail: str = ""

    @property
    def advice(self) -> str | None:
        """What a person must do; None when nobody is needed, or not yet."""
        if self.cause is None:
            return None
        policy = POLICIES[self.cause]
        return policy.advice if self.memory.attempts.get(self.cause, 0) >= policy.patience else None


def decide(sight: Sight, memory: Memory, *, now: float, jitter: float) -> Decision:
    """The decision about one connector. `jitter` is between 0 and 1."""
    memory = _see_progress(sight, memory, now)
    verdict = sight.status.verdict() if sight.status else Verdict.PENDING
    if verdict is Verdict.HALTED or (sight.status and _has_no_slot(sight)):
        return _about_nothing_to_do(sight, memory)
    if verdict is Verdict.FAILED:
        return _about(classify(_trace(sight)), sight, memory, now, jitter)
    if verdict is Verdict.RUNNING:
        return _about_running(sight, memory, now, jitter)
    since = now if memory.pending_since is None else memory.pending_since
    memory = replace(memory, pending_since=since, running_since=None)
    if now - since < ASSIGN_SECONDS:
        return Decision(memory, cause=memory.cause)
    return _about(Cause.not_assigned if sight.status else Cause.not_there, sight, memory, now, jitter)


def _has_no_slot(sight: Sight) -> bool:
    is_gone = sight.slot is None or sight.slot.is_lost
    return sight.is_database_seen and sight.slot_name is not None and is_gone


def _about_nothing_to_do(sight: Sight, memory: Memory) -> Decision:
    """Somebody stopped it, or a restart would help nothing."""
    memory = Memory(confirmed_lsn=memory.confirmed_lsn, confirmed_at=memory.confirmed_at)
    if sight.status is not None and sight.status.verdict() is Verdict.HALTED:
        return Decision(memory)
    return Decision(
        memory, cause=Cause.slot_missing if sight.slot is None else Cause.slot_lost, detail=f"slot {sight.slot_name}"
    )


def _about_running(sight: Sight, memory: Memory, now: float, jitter: float) -> Decision:
    since = now if memory.running_since is None else memory.running_since
    memory = replace(memory, running_since=since, pending_since=None)
    is_beating = _is_beating(sight, memory, now)
    if not is_beating and now - since >= sight.stale_seconds:
        return _about(Cause.stalled, sight, memory, now, jitter)
    if sight.is_passing_over:
        return _about_passing_over(sight, memory, now, since)
    if not is_beating or now - since < SETTLE_SECONDS:
        return Decision(memory, cause=memory.cause)
    memory = replace(memory, cause=None, try_at=None, pass_over_until_lsn=None)
    if now - since >= STEADY_SECONDS:
        memory = replace(memory, attempts={})
    return Decision(memory)


def _about_passing_over(sight: Sight, memory: Memory, now: float, since: float) -> Decision:
    """The declared settings come back when all is confirmed that was written before they were changed."""
    until = memory.pass_over_until_lsn
    if until is None:
        until = sight.current_lsn
        memory = replace(memory, pass_over_until_lsn=until)
    is_past = sight.slot.confirmed_lsn >= until if sight.slot is not None else now - since >= PASS_OVER_SECONDS
    return Decision(memory, Action.RESTORE if is_past else None, Cause.invalid_operation)


def _about(cause: Cause, sight: Sight, memory: Memory, now: float, jitter: float) -> Decision:
    """A try when its time has come; else the wait for it."""
    status = sight.status
    detail = _what_is_seen(sight) if cause is Cause.stalled else "; ".join(status.failures()) if status else ""
    attempts = memory.attempts.get(cause, 0)
    delay = delay_seconds(POLICIES[cause], attempts, jitter)
    if delay is None:
        return Decision(replace(memory, cause=cause, try_at=None, running_since=None), cause=cause, detail=detail)
    if memory.cause is not cause or memory.try_at is None:
        memory = replace(memory, cause=cause, try_at=now + delay)
    if memory.try_at is not None and now < memory.try_at:
        return Decision(memory, cause=cause, detail=detail)
    after = delay_seconds(POLICIES[cause], attempts + 1, jitter) or 0.0
    memory = replace(
        memory,
        attempts={**memory.attempts, cause: attempts + 1},
        try_at=now + after,
        running_since=None,
        pending_since=None,
        pass_over_until_lsn=None,
    )
    return Decision(memory, _action(cause, sight), cause, detail)


def _action(cause: Cause, sight: Sight) -> Action:
    if cause in (Cause.stalled, Cause.not_assigned):
        return Action.RESTART_ALL
    if cause is Cause.invalid_operation and not sight.is_passing_over:
        return Action.PASS_OVER
    return Action.RESTART_FAILED


def _is_beating(sight: Sight, memory: Memory, now: float) -> bool:
    """Whether it does something, as far as the database shows: its slot moves, or nothing is to be read and the
    heartbeat is fresh. One that says RUNNING and does neither hangs, or fails again and again within itself."""
    if not sight.is_database_seen or not sight.heartbeat_seconds:
        return True
    if sight.slot is not None and now - memory.confirmed_at < sight.stale_seconds:
        return True
    is_slot_behind = sight.slot is not None and sight.slot.lag_bytes > 0
    has_no_beat = sight.heartbeat_age is not None and sight.heartbeat_age >= sight.stale_seconds
    return not is_slot_behind and not has_no_beat


def _what_is_seen(sight: Sight) -> str:
    slot, age = sight.slot, sight.heartbeat_age
    beat = "no heartbeat" if age is None else f"heartbeat {age:.0f} s old"
    if slot is None:
        return beat
    reader = f"process {slot.active_pid}" if slot.is_active else "nobody"
    return f"{beat}, slot {slot.name} read by {reader} and {slot.lag_bytes} bytes behind"


def _see_progress(sight: Sight, memory: Memory, now: float) -> Memory:
    if sight.slot is None or sight.slot.confirmed_lsn == memory.confirmed_lsn:
        return memory
    return replace(memory, confirmed_lsn=sight.slot.confirmed_lsn, confirmed_at=now)


def _trace(sight: Sight) -> str:
    """What the FAILED parts say, the connector's own first."""
    if sight.status is None:
        return ""
    parts = [(sight.status.connector.state, sight.status.connector.trace)]
    parts += [(task.state, task.trace) for task in sight.status.tasks]
    return "\n".join(trace or "" for state, trace in parts if state == "FAILED")
