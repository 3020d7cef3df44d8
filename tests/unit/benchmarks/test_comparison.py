"""What counts as changed beyond noise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.__main__ import compare_files
from tests.benchmarks.comparison import Verdict, compare, render

MACHINE = {"cpu": "one", "cores": 2, "memory_gib": 8, "python_loop_seconds": 0.2}


def results(*p50: float, machine: dict[str, Any] | None = None, **parts: Any) -> dict[str, Any]:
    """Results with one rate, measured so often."""
    latency = [
        {
            "rate_per_second": 500,
            "acknowledged_ms": {"p50": 2.0, "p99": 8.0},
            "received_ms": {"p50": value, "p99": 30.0},
            "cpu_percent": {"kafka": 20.0},
            "generator_cpu_percent": 10.0,
        }
        for value in p50
    ]
    return {"machine": machine or MACHINE, "latency": latency, **parts}


def verdict_on(name: str, earlier: dict[str, Any], later: dict[str, Any]) -> Verdict:
    return next(change.verdict for change in compare(earlier, later).changes if change.name == name)


@pytest.mark.parametrize(
    ("earlier", "later", "verdict"),
    [
        ((5.0, 5.2), (5.0, 5.2), Verdict.SAME),
        ((5.0, 5.2), (5.5, 5.6), Verdict.SAME),  # the margin of runs apart
        ((5.0, 9.0), (10.0, 14.0), Verdict.SAME),  # both are noisy, and nearly touch
        ((5.0, 5.2), (10.0, 10.4), Verdict.WORSE),
        ((10.0, 10.4), (5.0, 5.2), Verdict.BETTER),
        ((5.0,), (7.0,), Verdict.SAME),  # measured once: nobody knows its spread
        ((5.0,), (10.0,), Verdict.WORSE),
    ],
)
def test_a_figure_changed_when_the_ranges_of_its_measurements_do_not_touch(
    earlier: tuple[float, ...], later: tuple[float, ...], verdict: Verdict
) -> None:
    assert verdict_on("submit → received at 500/s, p50", results(*earlier), results(*later)) is verdict


def test_where_more_is_better_less_is_worse() -> None:
    def backlog(*rates: int) -> dict[str, Any]:
        return {"drain": {"backlog": 60_000, "records_per_second": rates}}

    name = "backlog to Kafka, one outbox"
    assert verdict_on(name, results(5.0, **backlog(20_000, 21_000)), results(5.0, **backlog(9_000, 10_000))) == "worse"
    assert verdict_on(name, results(5.0, **backlog(9_000, 10_000)), results(5.0, **backlog(20_000, 21_000))) == "better"


def test_what_only_one_of_them_measured_is_told_and_not_judged() -> None:
    drained = {"drain": {"backlog": 60_000, "records_per_second": [20_000, 21_000]}}
    there, gone = compare(results(5.0), results(5.0, **drained)), compare(results(5.0, **drained), results(5.0))
    assert (there.only_earlier, there.only_later) == ((), ("backlog to Kafka, one outbox",))
    assert (gone.only_earlier, gone.only_later) == (("backlog to Kafka, one outbox",), ())
    assert not there.is_worse
    assert not gone.is_worse


def test_another_machine_and_a_slower_day_are_doubts() -> None:
    other = {**MACHINE, "cores": 8, "python_loop_seconds": 0.3}
    doubts = compare(results(5.0), results(5.0, machine=other)).doubts
    assert doubts == (
        "cores: 2 then, 8 now",
        "one core is 1.50 times as slow as then (0.2 s and 0.3 s for the same loop)",
    )


def test_what_became_worse_is_told_first() -> None:
    lines = render(compare(results(5.0, 5.1), results(12.0, 12.5))).splitlines()
    assert lines[0].startswith("worse         submit → received at 500/s, p50: 5 / 5.1 ms → 12 / 12.5 ms (× 2.43")
    assert lines[-1] == "5 figures compared: 1 worse beyond noise."


def test_the_command_says_by_its_exit_status_whether_something_is_worse(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    then, now, broken = (str(tmp_path / name) for name in ("then.json", "now.json", "broken.json"))
    Path(then).write_text(json.dumps(results(5.0, 5.1)))
    Path(now).write_text(json.dumps(results(12.0, 12.5)))
    Path(broken).write_text('{"latency": [{}]}')
    assert [compare_files([then, then]), compare_files([then, now]), compare_files([now, then])] == [0, 1, 0]
    assert [compare_files([then, broken]), compare_files([then, str(tmp_path / "none.json")])] == [64, 64]
    assert "none.json cannot be read" in capsys.readouterr().err
