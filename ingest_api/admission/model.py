"""The ladder of admission: pure decisions, thresholds as data. What is measured comes from sampler.py."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import NamedTuple

NEVER = math.inf
MAX_SEEN = 7200


class AdmissionState(IntEnum):
    """The steps of the ladder, from everything to nothing."""

    GREEN = 0
    YELLOW = 1
    ORANGE = 2
    RED = 3
    LOST = 4


class RequestClass(StrEnum):
    """What requests are told apart by when not all can be taken."""

    BATCH = "batch"
    SEND = "send"
    COMMAND = "command"
    LOGIN = "login"


ADMITTED_SHARE: Mapping[AdmissionState, Mapping[RequestClass, float]] = {
    state: dict(zip(RequestClass, shares, strict=True))
    for state, shares in {
        # batch, send, other command, login. Reads need tokens, so logins are taken as long as there are reads.
        AdmissionState.GREEN: (1, 1, 1, 1),
        AdmissionState.YELLOW: (0, 1, 1, 1),
        AdmissionState.ORANGE: (0, 0.5, 0.5, 1),
        AdmissionState.RED: (0, 0, 0, 1),
        AdmissionState.LOST: (0, 0, 0, 1),
    }.items()
}
"""Which share of each class is taken at each step."""

RETRY_SECONDS: Mapping[AdmissionState, tuple[int, int]] = {
    AdmissionState.GREEN: (1, 2),
    AdmissionState.YELLOW: (2, 10),
    AdmissionState.ORANGE: (1, 5),
    AdmissionState.RED: (5, 30),
    AdmissionState.LOST: (30, 90),
}
"""`Retry-After` is drawn between these, so that those who were refused do not come back together."""


class Threshold(NamedTuple):
    """A step is entered when the value reaches `enter`, and left when the value falls below `leave`."""

    enter: float
    leave: float


@dataclass(frozen=True, slots=True)
class Thresholds:
    """For each signal the thresholds of yellow, orange and red. Bytes and queue are shares of what there is room for.

    Time alone never stops writes: a quiet system may wait out a weekend without its connector, and loses nothing."""

    slot_bytes: tuple[Threshold, Threshold, Threshold] = (
        Threshold(0.50, 0.40),
        Threshold(0.70, 0.60),
        Threshold(0.85, 0.75),
    )
    lag_seconds: tuple[Threshold, Threshold, Threshold] = (
        Threshold(300, 60),
        Threshold(NEVER, NEVER),
        Threshold(NEVER, NEVER),
    )
    queue: tuple[Threshold, Threshold, Threshold] = (
        Threshold(0.50, 0.25),
        Threshold(0.75, 0.50),
        Threshold(0.95, 0.70),
    )


class SlotSample(NamedTuple):
    """The replication slot as PostgreSQL shows it (of several, the worst). `safe_bytes` is None when PostgreSQL
    sets no limit; `status` is None when there is no slot, and `held` while an operator keeps writes away."""

    status: str | None
    held_bytes: int
    safe_bytes: int | None
    limit_bytes: int
    lag_seconds: float

    @property
    def used_share(self) -> float:
        """Share of the room for held WAL that is in use."""
        if self.safe_bytes is None:
            return self.held_bytes / self.limit_bytes
        # What PostgreSQL says is safe counts whole segments, so it may be more than the limit when that is small.
        return max(0.0, 1 - self.safe_bytes / max(self.limit_bytes, self.held_bytes + self.safe_bytes, 1))

    @property
    def headroom_bytes(self) -> int:
        """What it may still hold; negative when it is over the limit already."""
        return self.limit_bytes - self.held_bytes if self.safe_bytes is None else self.safe_bytes


class Reading(NamedTuple):
    """What the ladder decides from. `slot` is None as long as it was never seen."""

    slot: SlotSample | None
    queue_share: float


def next_state(current: AdmissionState, reading: Reading, thresholds: Thresholds) -> AdmissionState:
    """The step after this reading. Between a threshold's two values the step stays as it is."""
    slot = reading.slot
    if slot is not None and slot.status in (None, "lost", "held"):
        return AdmissionState.LOST
    signals = [(reading.queue_share, thresholds.queue)]
    if slot is not None:
        signals += [(slot.used_share, thresholds.slot_bytes), (slot.lag_seconds, thresholds.lag_seconds)]
    state = AdmissionState.GREEN
    for value, steps in signals:
        for step, threshold in zip((1, 2, 3), steps, strict=True):
            if value >= threshold.enter or (current >= step and value >= threshold.leave):
                state = max(state, AdmissionState(step))
    # The next checkpoint may remove what this slot still needs.
    return max(state, AdmissionState.RED) if slot is not None and slot.status == "unreserved" else state


@dataclass(slots=True)
class LagClock:
    """How old the oldest WAL is that the slot's reader has not confirmed: PostgreSQL tells positions, not times."""

    _seen: deque[tuple[float, int]] = field(default_factory=deque)

    def lag_seconds(self, now: float, current_lsn: int, confirmed_lsn: int) -> float:
        """The age of the first position that was seen beyond what is confirmed. `now` and the answer in seconds."""
        if not self._seen or current_lsn > self._seen[-1][1]:
            self._seen.append((now, current_lsn))
        while self._seen and self._seen[0][1] <= confirmed_lsn:
            self._seen.popleft()
        if len(self._seen) > MAX_SEEN:
            self._thin()
        return now - self._seen[0][0] if self._seen else 0.0

    def _thin(self) -> None:
        """Keeps the first position of each pair: lag is told late, never early."""
        self._seen = deque(item for number, item in enumerate(self._seen) if number % 2 == 0)


class Shedder:
    """Takes a share of requests, evenly: of four at a half it takes every second one."""

    def __init__(self) -> None:
        self._credit = dict.fromkeys(RequestClass, 1.0)

    def takes(self, request_class: RequestClass, share: float) -> bool:
        """Whether this one is among the share that is taken."""
        if share >= 1:
            return True
        credit = min(self._credit[request_class] + share, 1.0)
        is_taken = share > 0 and credit >= 1
        self._credit[request_class] = credit - 1 if is_taken else credit
        return is_taken
