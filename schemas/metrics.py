"""What a metric is, as a program's catalogue declares it: what operators, dashboards and alerts need to know of it. How
it is counted is the programs' business; here is no library of Prometheus."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

HOP_BUCKETS = (
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip
"""Seconds. Those that targets and objectives speak of (25 ms, 50 ms, 1 s) are among them."""

LATENCY_BUCKETS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
LARGEST_SAMPLE = 64


class Kind(StrEnum):
    """Prometheus' types."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Label:
    """A label and the values that it can have: either all of them, or what keeps their number small."""

    name: str
    values: tuple[str, ...] = ()
    bound: str = ""

    def __post_init__(self) -> None:
        if bool(self.values) == bool(self.bound):
            raise ValueError(f"the label {self.name} needs its values, or what bounds them, and not both")


@dataclass(frozen=True, slots=True)
class Metric:
    """`unit` is what one of it is: `seconds`, `bytes`, `records`, `1` for what is true or false. `sentence` is for
    operators."""

    name: str
    kind: Kind
    unit: str
    sentence: str
    labels: tuple[Label, ...] = ()
    buckets: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if (self.kind is Kind.COUNTER) != self.name.endswith("_total"):
            raise ValueError(f"{self.name}: counters, and they alone, end in _total")
        if bool(self.buckets) != (self.kind is Kind.HISTOGRAM) or list(self.buckets) != sorted(set(self.buckets)):
            raise ValueError(f"{self.name}: histograms, and they alone, have buckets, which rise")
        if not self.sentence.endswith("."):
            raise ValueError(f"{self.name}: what operators read is a sentence")

    @property
    def label_names(self) -> tuple[str, ...]:
        """The labels' names, in order."""
        return tuple(label.name for label in self.labels)


Catalogue = Mapping[str, Metric]
"""A program's metrics by name."""


def catalogue(*metrics: Metric) -> Catalogue:
    """The catalogue of these metrics. Raises ValueError if a name is there twice."""
    found = {metric.name: metric for metric in metrics}
    if len(found) != len(metrics):
        raise ValueError("a metric is declared twice")
    return found


def counter(name: str, unit: str, sentence: str, *labels: Label) -> Metric:
    """What only grows."""
    return Metric(name, Kind.COUNTER, unit, sentence, labels)


def gauge(name: str, unit: str, sentence: str, *labels: Label) -> Metric:
    """What goes up and down."""
    return Metric(name, Kind.GAUGE, unit, sentence, labels)


def histogram(name: str, unit: str, sentence: str, buckets: tuple[float, ...], *labels: Label) -> Metric:
    """How something is distributed."""
    return Metric(name, Kind.HISTOGRAM, unit, sentence, labels, buckets)


def http_metrics(prefix: str, whose: str) -> tuple[Metric, Metric]:
    """Rate, errors and duration of a program's HTTP, by route template (never by path: that has no bound)."""
    method = Label("method", bound="the methods of the routes, and `(any)` where none matched")
    route = Label("route", bound=f"the templates of {whose} routes, and `(none)`")
    status = Label("status", bound="the status codes of HTTP")
    return (
        counter(f"{prefix}_http_requests_total", "requests", "HTTP requests answered.", method, route, status),
        histogram(
            f"{prefix}_http_request_seconds",
            "seconds",
            "From the request's headers to its answer's start.",
            LATENCY_BUCKETS,
            method,
            route,
        ),
    )


_GENERATION = Label("generation", ("0", "1", "2"))
PROCESS_METRICS = (
    counter("process_cpu_seconds_total", "seconds", "Time that the process used processors for."),
    gauge("process_resident_memory_bytes", "bytes", "Memory that the process holds."),
    gauge("process_virtual_memory_bytes", "bytes", "Memory that the process has addresses for."),
    gauge("process_start_time_seconds", "seconds", "When the process began, in seconds since 1970."),
    gauge("process_open_fds", "descriptors", "File descriptors that are open: files and connections."),
    gauge("process_max_fds", "descriptors", "File descriptors that the process may have."),
    counter("python_gc_objects_collected_total", "objects", "Objects that the collector freed.", _GENERATION),
    counter("python_gc_objects_uncollectable_total", "objects", "Objects that it could not free.", _GENERATION),
    counter("python_gc_collections_total", "runs", "Times that the collector ran.", _GENERATION),
    gauge(
        "python_info",
        "1",
        "Which Python it is: always 1, the labels tell.",
        *(
            Label(name, bound="one value per process")
            for name in ("version", "implementation", "major", "minor", "patchlevel")
        ),
    ),
)
"""What every program tells of its process (prometheus_client's own collectors, on Linux)."""


class BucketCounts:
    """The counts of one histogram, for what happens in batches: adding costs a fraction of a microsecond per value."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, values: Iterable[float], *, weight: int = 1) -> None:
        """Counts values, each for so many. A negative one (clocks differ) counts as 0."""
        bounds, counts = self._bounds, self._counts
        for value in values:
            at_least_zero = max(value, 0.0)
            counts[bisect_left(bounds, at_least_zero)] += weight
            self._sum += at_least_zero * weight

    def cumulative(self) -> tuple[list[tuple[str, float]], float]:
        """The buckets as Prometheus has them (upper bound, how many are not above it), and the sum of the values."""
        total = 0
        buckets: list[tuple[str, float]] = []
        for bound, count in zip((*self._bounds, math.inf), list(self._counts), strict=True):
            total += count
            buckets.append(("+Inf" if bound == math.inf else str(bound), total))
        return buckets, self._sum


def sample_step(count: int) -> int:
    """Of so many values every how many-th is measured (and counts for as many): all of few, some 64 of many."""
    return max(1, count // LARGEST_SAMPLE)


def span_metrics(program: str) -> tuple[Metric, ...]:
    """What every program counts that exports spans."""
    return (
        counter(f"{program}_spans_sent_total", "spans", "Spans that the collector took."),
        counter(
            f"{program}_spans_dropped_total",
            "spans",
            "Spans that were lost, because too many waited or the collector did not take them.",
            Label("reason", ("queue_full", "collector")),
        ),
    )
