"""Metrics are what the catalogues declare, and nothing else."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from infra.metrics_page import CATALOGUES, page
from schemas.metrics import BucketCounts, Catalogue, Kind, Label, Metric, catalogue, counter, sample_step
from tests.architecture.test_contracts import PACKAGES, ROOT

MAKERS = {"Counter", "Gauge", "Histogram", "Summary", "Info", "Enum"}
FAMILIES = {"CounterMetricFamily", "GaugeMetricFamily", "HistogramMetricFamily"}
INSTRUMENTS = {"infra/telemetry/instruments.py"}
TELLERS = INSTRUMENTS | {"stream_apps/worker_health.py"}


def names_from_prometheus(path: Path) -> set[str]:
    """What a module takes from prometheus_client."""
    return {
        alias.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("prometheus_client")
        for alias in node.names
    }


def calls_of(path: Path, names: set[str]) -> set[str]:
    return {
        node.func.id
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names
    }


def test_the_page_of_metrics_is_made_from_the_catalogues() -> None:
    assert (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8") == page()


def test_nothing_is_counted_that_no_catalogue_declares() -> None:
    makers, tellers = set(), set()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            taken = names_from_prometheus(path)
            assert not any(name in {"prometheus_client", "metrics"} for name in taken), path
            if calls_of(path, MAKERS & taken):
                makers.add(str(path.relative_to(ROOT)))
            if calls_of(path, FAMILIES & taken):
                tellers.add(str(path.relative_to(ROOT)))
    assert makers == INSTRUMENTS
    assert tellers <= TELLERS


@pytest.mark.parametrize("program", CATALOGUES)
def test_every_metric_is_named_for_its_program_and_its_unit(program: str) -> None:
    prefix = f"{program.replace('-', '_')}_"
    for metric in CATALOGUES[program].values():
        assert metric.name.startswith((prefix, "process_", "python_")), metric.name
        if metric.unit in {"seconds", "bytes", "records", "entries"} and metric.kind is not Kind.COUNTER:
            assert metric.unit in metric.name or "seconds" in metric.name, metric.name


def test_what_operators_read_is_never_empty_and_never_the_same() -> None:
    sentences = [metric.sentence for found in CATALOGUES.values() for metric in set(found.values())]
    assert all(len(sentence) > 10 for sentence in sentences)


@pytest.mark.parametrize(
    "declare",
    [
        lambda: Metric("a_seconds", Kind.COUNTER, "seconds", "It does not end as counters do."),
        lambda: Metric("a_total", Kind.GAUGE, "1", "It ends as counters do."),
        lambda: Metric("a_seconds", Kind.HISTOGRAM, "seconds", "It has no buckets."),
        lambda: Metric("a_seconds", Kind.HISTOGRAM, "seconds", "They fall.", buckets=(2.0, 1.0)),
        lambda: Metric("a_seconds", Kind.GAUGE, "seconds", "no sentence"),
        lambda: Label("user"),
        lambda: Label("state", ("on", "off"), "two"),
        lambda: catalogue(counter("a_total", "1", "Once."), counter("a_total", "1", "Twice.")),
    ],
)
def test_a_declaration_that_tells_too_little_is_refused(declare: object) -> None:
    with pytest.raises(ValueError, match=r".+"):
        declare()  # type: ignore[operator]


def test_bucket_counts_are_what_prometheus_expects() -> None:
    counts = BucketCounts((0.1, 1.0))
    counts.add([0.05, 0.1, 0.5, 7.0])
    counts.add([-3.0], weight=2)
    buckets, total = counts.cumulative()
    assert buckets == [("0.1", 4), ("1.0", 5), ("+Inf", 6)]
    assert total == pytest.approx(7.65)


@pytest.mark.parametrize(("count", "step"), [(0, 1), (1, 1), (64, 1), (127, 1), (128, 2), (1000, 15)])
def test_of_many_values_some_stand_for_all(count: int, step: int) -> None:
    assert sample_step(count) == step
    assert len(range(0, count, step)) * step in range(count, count + step)


def test_a_catalogue_is_read_by_name() -> None:
    found: Catalogue = catalogue(counter("a_total", "1", "Once."))
    assert found["a_total"].label_names == ()
