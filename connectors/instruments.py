"""Makes what counts, from the catalogue: no metric without a declaration."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

from schemas.metrics import Catalogue


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
