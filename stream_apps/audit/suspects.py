"""What looks like a fault, until it has lasted long enough to be one. Pure, but for the clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from stream_apps.audit.checker import Fault

Sign = tuple[str, str, str, int]


@dataclass(slots=True)
class _Suspect:
    fault: Fault
    since: float
    is_told: bool = False


class Suspects:
    """`patience` says for how many seconds a fault may be a matter of time."""

    def __init__(self, patience: Callable[[Fault], float], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._patience = patience
        self._clock = clock
        self._suspects: dict[Sign, _Suspect] = {}

    def __len__(self) -> int:
        return len(self._suspects)

    def faults(self) -> list[Fault]:
        """All that is under suspicion: to be looked at again."""
        return [suspect.fault for suspect in self._suspects.values()]

    def see(self, faults: Iterable[Fault]) -> list[Fault]:
        """Notes what a look has found, which included all that was under suspicion: what was not found again is
        cleared. The faults that have now lasted are answered, each once."""
        now = self._clock()
        found = {_sign(fault): fault for fault in faults}
        self._suspects = {sign: one for sign, one in self._suspects.items() if sign in found}
        confirmed: list[Fault] = []
        for sign, fault in found.items():
            suspect = self._suspects.setdefault(sign, _Suspect(fault, now))
            if not suspect.is_told and now - suspect.since >= self._patience(fault):
                suspect.is_told = True
                confirmed.append(fault)
        return confirmed

    def excuse(self, faults: Iterable[Fault]) -> None:
        """There is a known reason for these: their time begins anew."""
        for fault in faults:
            suspect = self._suspects.get(_sign(fault))
            if suspect is not None:
                suspect.since = self._clock()

    def clear(self, conversation_ids: Iterable[str]) -> None:
        """Something was done about these: what is found from now on is news."""
        ids = set(conversation_ids)
        self._suspects = {sign: one for sign, one in self._suspects.items() if one.fault.conversation_id not in ids}


def _sign(fault: Fault) -> Sign:
    return fault.place, fault.kind, fault.conversation_id, fault.seq
