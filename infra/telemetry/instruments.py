"""Makes what counts, from the catalogue: no metric without a declaration."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import product

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from schemas.metrics import BucketCounts, Catalogue, Metric


def make_registry() -> CollectorRegistry:
    """A registry with the metrics of the process. (When each counter began, which the library would tell too, doubles
    what is scraped, and nobody asks.)"""
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    return registry


class Instruments:
    """Of one registry and one program. Every method raises KeyError for what its catalogue does not have."""

    def __init__(self, registry: CollectorRegistry, catalogue: Catalogue) -> None:
        self._registry = registry
        self._catalogue = catalogue

    def counter(self, name: str) -> Counter:
        """The counter of this name."""
        metric = self._catalogue[name]
        return Counter(name, metric.sentence, metric.label_names, registry=self._registry)

    def gauge(self, name: str) -> Gauge:
        """The gauge of this name."""
        metric = self._catalogue[name]
        return Gauge(name, metric.sentence, metric.label_names, registry=self._registry)

    def histogram(self, name: str) -> Histogram:
        """The histogram of this name, for what happens one by one."""
        metric = self._catalogue[name]
        return Histogram(name, metric.sentence, metric.label_names, registry=self._registry, buckets=metric.buckets)

    def bucket_counts(self, name: str) -> BucketCounts:
        """The counts of the histogram of this name, for what happens in batches."""
        return self.labelled_counts(name)[()]

    def labelled_counts(self, name: str) -> Mapping[tuple[str, ...], BucketCounts]:
        """The same by the values of its labels, which must be closed: all of them are told from the beginning."""
        metric = self._catalogue[name]
        children = {
            values: BucketCounts(metric.buckets) for values in product(*(label.values for label in metric.labels))
        }
        self._registry.register(_Counted(metric, children))
        return children


class _Counted(Collector):
    """Bucket counts as Prometheus reads them."""

    def __init__(self, metric: Metric, children: Mapping[tuple[str, ...], BucketCounts]) -> None:
        self._metric = metric
        self._children = children

    def describe(self) -> Iterable[HistogramMetricFamily]:
        """What it will tell of."""
        return [self._family()]

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """The counts of now."""
        family = self._family()
        for values, counts in self._children.items():
            family.add_metric(values, *counts.cumulative())
        yield family

    def _family(self) -> HistogramMetricFamily:
        return HistogramMetricFamily(self._metric.name, self._metric.sentence, labels=self._metric.label_names)
