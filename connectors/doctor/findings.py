"""What a check says: how bad, what, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import Generic, NamedTuple, TypeVar

FactsT = TypeVar("FactsT")


class Severity(IntEnum):
    """ERROR: events are lost or do not flow, or will at the next fault. WARNING: they come late, or a fault that is
    easily survived elsewhere is not here. NOTE: worth knowing."""

    NOTE = 1
    WARNING = 2
    ERROR = 3


class Problem(NamedTuple):
    """One thing that is not as it should be; both texts are sentences."""

    severity: Severity
    sentence: str
    fix: str


class Finding(NamedTuple):
    """A problem, and the check that found it."""

    check: str
    problem: Problem


class Check(NamedTuple, Generic[FactsT]):
    """A check: a name that stays the same (`postgres.wal-level`), and how it judges facts."""

    name: str
    judge: Callable[[FactsT], Iterator[Problem]]

    def run(self, facts: FactsT) -> list[Finding]:
        """What it finds; nothing when all is well."""
        return [Finding(self.name, problem) for problem in self.judge(facts)]


def error(sentence: str, fix: str) -> Problem:
    """A problem that loses events or stops them."""
    return Problem(Severity.ERROR, sentence, fix)


def warning(sentence: str, fix: str) -> Problem:
    """A problem that delays events, or does harm at a fault."""
    return Problem(Severity.WARNING, sentence, fix)


def note(sentence: str, fix: str) -> Problem:
    """What is worth knowing."""
    return Problem(Severity.NOTE, sentence, fix)
