"""Results as named figures, and the targets that some of them have. What reads results without measuring knows these
names alone: the page, its plots, and the comparison with earlier results."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import mean
from typing import Any, Literal

Better = Literal["lower", "higher"]


@dataclass(frozen=True)
class Figure:
    """What was measured, once or several times. `unit` is read after the number."""

    values: tuple[float, ...]
    unit: str
    better: Better

    @property
    def mean(self) -> float:
        """Of all measurements."""
        return mean(self.values)

    def text(self) -> str:
        """Each measurement, in their order."""
        return " / ".join(f"{value:g}" for value in self.values) + f" {self.unit}".rstrip()


@dataclass(frozen=True)
class Target:
    """A bound that a figure is meant to reach, and what to aim for next. `baseline` names the figure beside it."""

    figure: str
    bound: float
    aim: float | None = None
    baseline: str | None = None

    def is_reached(self, figure: Figure) -> bool:
        """By the mean of what was measured."""
        return figure.mean <= self.bound if figure.better == "lower" else figure.mean >= self.bound


TARGETS = (
    Target("submit → received at 500/s, p50", 6, 4),
    Target("submit → received at 500/s, p99", 25, 12),
    Target("through the gateway at 500/s, p50", 6),
    Target("through the gateway at 500/s, p99", 25),
    Target("submit → received at 2000/s, p50", 35, 15),
    Target("submit → received at 2000/s, p99", 125, 60),
    Target("Debezium's defaults / ours, p50", 100, baseline="insert → Kafka, Debezium's defaults, p50"),
    Target("poller / ours, p50", 8, baseline="insert → Kafka, poller, p50"),
    Target("poller / ours, p99", 4, baseline="insert → Kafka, poller, p99"),
    Target("log writer, 256 waiting", 15_000, 20_000, baseline="pgbench"),
    Target("log writer / pgbench", 4, 6, baseline="pgbench"),
    Target("single posts, stream side stopped", 3_000),
    Target("batches of 100, stream side stopped", 10_000),
    Target("timeline worker", 50_000, 100_000, baseline="hand-written loop"),
    Target("timeline worker / hand-written loop", 0.5, 0.8, baseline="hand-written loop"),
    Target("backlog to Kafka, one outbox", 20_000, 40_000),
    Target("idle change data capture leg", 15, 5),
    Target("killed timeline worker: longest wait", 9),
    Target("killed Connect worker: longest wait", 15),
    *(
        Target(f"memory of {program}", 200)
        for program in ("ingest-api", "timeline", "router", "channels", "delivery", "audit")
    ),
)
"""Those of the design, for a machine of two cores on which everything runs."""


def read_figures(results: dict[str, Any]) -> dict[str, Figure]:
    """Name -> figure, of every part that the results have."""
    return {
        name: Figure(tuple(float(value) for value in values), unit, better)
        for part in (_latency, _gateway, _ways_to_kafka, _http, _log_writer, _stream_side, _standing_still, _live)
        for name, values, unit, better in part(results)
    }


Found = Iterator[tuple[str, list[float], str, Better]]


def _latency(results: dict[str, Any]) -> Found:
    runs = results.get("latency", [])
    for rate in sorted({run["rate_per_second"] for run in runs}):
        same = [run for run in runs if run["rate_per_second"] == rate]
        for percentile in ("p50", "p99"):
            for name, key in (("submit → acknowledged", "acknowledged_ms"), ("submit → received", "received_ms")):
                yield f"{name} at {rate:g}/s, {percentile}", [run[key][percentile] for run in same], "ms", "lower"
        yield f"CPU at {rate:g}/s", [round(sum(run["cpu_percent"].values()), 1) for run in same], "% of a core", "lower"


def _gateway(results: dict[str, Any]) -> Found:
    runs = [run for run in results.get("gateway", []) if run["via_gateway"]]
    for rate in sorted({run["rate_per_second"] for run in runs}):
        same = [run for run in runs if run["rate_per_second"] == rate]
        for percentile in ("p50", "p99"):
            found = [run["received_ms"][percentile] for run in same]
            yield f"through the gateway at {rate:g}/s, {percentile}", found, "ms", "lower"


def _ways_to_kafka(results: dict[str, Any]) -> Found:
    for part, theirs, name in (
        ("insert_to_kafka", "defaults", "Debezium's defaults"),
        ("polled", "poller", "poller"),
    ):
        if not (found := results.get(part)):
            continue
        for percentile in ("p50", "p99"):
            pairs = [(a[percentile], b[percentile]) for a, b in zip(found["ours"], found[theirs], strict=True)]
            yield f"insert → Kafka, beside {name}, {percentile}", [ours for ours, _ in pairs], "ms", "lower"
            yield f"insert → Kafka, {name}, {percentile}", [baseline for _, baseline in pairs], "ms", "lower"
            ratios = [round(baseline / ours, 1) for ours, baseline in pairs]
            yield f"{name} / ours, {percentile}", ratios, "times", "higher"


def _http(results: dict[str, Any]) -> Found:
    if throughput := results.get("throughput"):
        for name, key in (("whole system running", "whole_system"), ("stream side stopped", "stream_side_stopped")):
            yield f"single posts, {name}", [throughput[key]["accepted_per_second"]], "messages/s", "higher"
        batches = [throughput["batches"]["messages_per_second"]]
        yield "batches of 100, stream side stopped", batches, "messages/s", "higher"
    if overload := results.get("overload"):
        accepted = [overload["overloaded"]["accepted_per_second"]]
        yield "accepted at four times the peak", accepted, "messages/s", "higher"


def _log_writer(results: dict[str, Any]) -> Found:
    if writer := results.get("log_writer"):
        for runs in zip(*writer["writer"], strict=True):
            rates = [run["messages_per_second"] for run in runs]
            yield f"log writer, {runs[0]['waiting']} waiting", rates, "messages/s", "higher"
        yield "pgbench", [writer["pgbench_per_second"]], "messages/s", "higher"
        yield "log writer / pgbench", [writer["ratio"]], "times", "higher"


def _stream_side(results: dict[str, Any]) -> Found:
    if backlog := results.get("timeline"):
        workers, by_hand = ([run["records_per_second"] for run in backlog[key]] for key in ("worker", "by_hand"))
        yield "timeline worker", workers, "records/s", "higher"
        yield "hand-written loop", by_hand, "records/s", "higher"
        ratios = [round(a / b, 2) for a, b in zip(workers, by_hand, strict=True)]
        yield "timeline worker / hand-written loop", ratios, "times", "higher"
    if drain := results.get("drain"):
        yield "backlog to Kafka, one outbox", drain["records_per_second"], "records/s", "higher"
    if filled := results.get("backfill"):
        yield "backfill", [filled["entries_per_second"]], "entries/s", "higher"


def _standing_still(results: dict[str, Any]) -> Found:
    if idle := results.get("idle"):
        yield "idle change data capture leg", [idle["cdc_leg_percent"]], "% of a core", "lower"
    for program, mib in results.get("memory", {}).get("resident_mib", {}).items():
        yield f"memory of {program}", [mib], "MiB", "lower"
    if takeover := results.get("takeover"):
        yield "killed timeline worker: longest wait", [takeover["timeline_seconds"]], "s", "lower"
        yield "killed Connect worker: longest wait", [takeover["connect_seconds"]], "s", "lower"


def _live(results: dict[str, Any]) -> Found:
    if live := results.get("live"):
        yield "memory per idle live client", [live["crowd"]["kilobytes_per_client"]], "kB", "lower"
        yield "deliveries to 1000 watchers", [live["fan_out"]["deliveries_per_second"]], "deliveries/s", "higher"
