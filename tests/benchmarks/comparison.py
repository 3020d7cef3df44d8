"""`python -m tests.benchmarks compare EARLIER.json LATER.json`: what became slower or faster by more than noise.

A figure has changed when the ranges of its measurements, each widened by the noise that machines like ours have between
runs, do not touch. A figure that was measured once has a wider margin: its spread is not known.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tests.benchmarks.figures import Figure, read_figures

REPEATED_MARGIN = 0.10
SINGLE_MARGIN = 0.25
"""Of a figure's value, on either side; so a doubling always shows, and a tenth never does."""
LOOP_MARGIN = 0.10
SAME_MACHINE = ("cpu", "cores", "memory_gib")


class Verdict(StrEnum):
    """What became of a figure."""

    WORSE = "worse"
    BETTER = "better"
    SAME = "within noise"


@dataclass(frozen=True)
class Change:
    """One figure, then and now. `factor` is later / earlier."""

    name: str
    earlier: Figure
    later: Figure
    factor: float
    verdict: Verdict


@dataclass(frozen=True)
class Comparison:
    """All figures that both results have, what only one has, and what makes them hard to compare."""

    changes: tuple[Change, ...]
    only_earlier: tuple[str, ...]
    only_later: tuple[str, ...]
    doubts: tuple[str, ...]

    @property
    def is_worse(self) -> bool:
        """Whether any figure is, beyond noise."""
        return any(change.verdict is Verdict.WORSE for change in self.changes)


def compare(earlier: dict[str, Any], later: dict[str, Any]) -> Comparison:
    """Of two results as `python -m tests.benchmarks` writes them."""
    before, after = read_figures(earlier), read_figures(later)
    changes = tuple(_judge(name, before[name], after[name]) for name in before if name in after)
    return Comparison(
        changes,
        tuple(name for name in before if name not in after),
        tuple(name for name in after if name not in before),
        tuple(_doubts(earlier.get("machine", {}), later.get("machine", {}))),
    )


def _judge(name: str, earlier: Figure, later: Figure) -> Change:
    factor = later.mean / earlier.mean if earlier.mean else float("inf") if later.mean else 1.0
    before, after = _widened(earlier), _widened(later)
    if before[0] <= after[1] and after[0] <= before[1]:
        verdict = Verdict.SAME
    else:
        is_better = (later.mean < earlier.mean) == (earlier.better == "lower")
        verdict = Verdict.BETTER if is_better else Verdict.WORSE
    return Change(name, earlier, later, factor, verdict)


def _widened(figure: Figure) -> tuple[float, float]:
    margin = REPEATED_MARGIN if len(figure.values) > 1 else SINGLE_MARGIN
    return min(figure.values) * (1 - margin), max(figure.values) * (1 + margin)


def _doubts(earlier: dict[str, Any], later: dict[str, Any]) -> list[str]:
    doubts = [
        f"{name}: {earlier.get(name)} then, {later.get(name)} now"
        for name in SAME_MACHINE
        if earlier.get(name) != later.get(name)
    ]
    then, now = earlier.get("python_loop_seconds"), later.get("python_loop_seconds")
    if then and now and abs(now / then - 1) > LOOP_MARGIN:
        doubts.append(f"one core is {now / then:.2f} times as slow as then ({then} s and {now} s for the same loop)")
    return doubts


def render(comparison: Comparison) -> str:
    """For a terminal: what changed first, then the rest."""
    lines = [f"Doubtful: {doubt}." for doubt in comparison.doubts]
    for verdict in Verdict:
        for change in comparison.changes:
            if change.verdict is verdict:
                lines.append(
                    f"{verdict:13} {change.name}: {change.earlier.text()} → {change.later.text()}"
                    f" (× {change.factor:.2f}, {change.earlier.better} is better)"
                )
    lines += [f"only then     {name}" for name in comparison.only_earlier]
    lines += [f"only now      {name}" for name in comparison.only_later]
    worse = sum(change.verdict is Verdict.WORSE for change in comparison.changes)
    lines.append(f"{len(comparison.changes)} figures compared: {worse} worse beyond noise.")
    return "\n".join(lines)
