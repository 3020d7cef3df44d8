"""The page and its plots are what the committed results say."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.figures import TARGETS, Figure, Target, read_figures
from tests.benchmarks.plots import Bar, Plot, draw, plots_of, scale_of, write_plots
from tests.benchmarks.report import PAGE, PLOTS, RESULTS, render_page, render_targets

COMMITTED: dict[str, Any] = json.loads(RESULTS.read_text("utf-8"))


def test_the_committed_page_is_made_from_the_committed_results() -> None:
    page = PAGE.read_text("utf-8")
    assert render_page(COMMITTED, page) == page, "run `python -m tests.benchmarks page`"


def test_the_committed_plots_are_made_from_the_committed_results(tmp_path: Path) -> None:
    names = write_plots(COMMITTED, tmp_path)
    assert sorted(names) == sorted(path.name for path in PLOTS.glob("*.svg"))
    for name in names:
        assert (tmp_path / name).read_text("utf-8") == (PLOTS / name).read_text("utf-8"), name
        assert f"(benchmarks/{name})" in PAGE.read_text("utf-8")


def test_plots_that_results_do_not_have_are_removed(tmp_path: Path) -> None:
    (tmp_path / "old.svg").write_text("<svg/>")
    assert write_plots({"machine": {}}, tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_target_is_reached_in_the_direction_that_is_better() -> None:
    target = Target("anything", 10)
    assert target.is_reached(Figure((9.0, 11.0), "ms", "lower"))
    assert not target.is_reached(Figure((9.0, 12.0), "ms", "lower"))
    assert target.is_reached(Figure((9.0, 12.0), "/s", "higher"))
    assert not target.is_reached(Figure((9.0,), "/s", "higher"))


def test_a_target_stands_beside_its_baseline() -> None:
    runs = [{"p50": 2.0, "p99": 6.0}, {"p50": 2.5, "p99": 6.0}]
    slow = [{"p50": 50.0, "p99": 100.0}, {"p50": 50.0, "p99": 110.0}]
    table = render_targets({"polled": {"ours": runs, "poller": slow}})
    assert "| poller / ours, p50 | 25 / 20 times | insert → Kafka, poller, p50: 50 / 50 ms | ≥ 8 | yes |" in table
    assert render_targets({}) == ""


def test_targets_name_figures_that_exist() -> None:
    one = [{"p50": 1.0, "p99": 1.0}]
    latency = [
        {
            "rate_per_second": rate,
            "acknowledged_ms": one[0],
            "received_ms": one[0],
            "cpu_percent": {},
            "generator_cpu_percent": 1.0,
        }
        for rate in (500, 2000)
    ]
    whole = {
        "latency": latency,
        "gateway": [{"via_gateway": True, **run} for run in latency],
        "insert_to_kafka": {"ours": one, "defaults": one},
        "polled": {"ours": one, "poller": one},
        "throughput": {
            **{key: {"accepted_per_second": 1} for key in ("whole_system", "stream_side_stopped")},
            "batches": {"messages_per_second": 1},
        },
        "log_writer": {
            "writer": [[{"waiting": 256, "messages_per_second": 1}]] * 2,
            "pgbench_per_second": 1,
            "ratio": 1,
        },
        "timeline": {key: [{"records_per_second": 1}] for key in ("worker", "by_hand")},
        "drain": {"records_per_second": [1]},
        "idle": {"cdc_leg_percent": 1},
        "memory": {
            "resident_mib": dict.fromkeys(("ingest-api", "timeline", "router", "channels", "delivery", "audit"), 1)
        },
        "takeover": {"timeline_seconds": 1, "connect_seconds": 1},
    }
    figures = read_figures(whole)
    assert [target.figure for target in TARGETS if target.figure not in figures] == []
    assert [target.baseline for target in TARGETS if target.baseline and target.baseline not in figures] == []


@pytest.mark.parametrize("is_logarithmic", [False, True])
def test_a_plot_is_well_formed_and_longer_bars_are_for_larger_values(is_logarithmic: bool) -> None:
    plot = Plot("A < B & C", "milliseconds", (Bar("x", (2.0,), 6.0), Bar("y", (40.0,))), is_logarithmic=is_logarithmic)
    drawing = ET.fromstring(draw(plot))  # noqa: S314 - our own text
    texts = [element.text for element in drawing.iter("{http://www.w3.org/2000/svg}text")]
    assert {"A < B & C", "x", "y", "2", "40"} <= set(texts)
    scale = scale_of(plot)
    assert scale.place(2.0) < scale.place(6.0) < scale.place(40.0) < 760
    assert scale.ticks()[-1] <= scale.high


def test_the_parts_of_a_bar_are_drawn_one_after_the_other() -> None:
    drawing = draw(Plot("CPU", "percent", (Bar("500/s", (20.0, 30.0)),), ("kafka", "redis")))
    scale = scale_of(Plot("CPU", "percent", (Bar("500/s", (20.0, 30.0)),)))
    assert f'<rect x="{scale.place(20.0):.1f}"' in drawing
    assert ">kafka</text>" in drawing


def test_results_without_figures_have_no_plots() -> None:
    assert plots_of({"machine": {}}) == {}
