"""How a Faust worker is: what it was assigned, how far it is behind, whether it makes progress. For /healthz and
/metrics."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from stream_apps.base import StreamApp, Watchdog
from stream_apps.catalogue import worker_catalogue
from stream_apps.health_server import Health


class WorkerHealth(Collector):
    """Of one app, once that is known (`watch`): its server is one of the parts that the app is made with.

    A worker is unhealthy before it has joined its consumer group, and when half of the watchdog's patience is used up.
    One that waits for something that is away is healthy: a restart would not help."""

    def __init__(self, registry: CollectorRegistry, watchdog: Watchdog) -> None:
        self._app: StreamApp | None = None
        self._watchdog = watchdog
        registry.register(self)

    def watch(self, app: StreamApp) -> None:
        """This is the app."""
        self._app = app

    async def ask(self) -> Health:
        """How it is now."""
        app = self._app
        if app is None or app.rebalancing_count == 0 or (app.rebalancing and app.rebalancing_count == 1):
            return Health(False, "starting", {"detail": "it has not joined its consumer group yet"})
        lags = partition_lags(app)
        seconds = self._watchdog.seconds_without_progress
        facts = {
            "assignment": [f"{topic}-{partition}" for topic, partition in sorted(lags)],
            "lag_records": sum(lags.values()),
            "seconds_without_progress": round(seconds, 1),
        }
        if seconds > self._watchdog.patience / 2:
            return Health(False, "stalled", facts)
        return Health(True, "rebalancing" if app.rebalancing else "running", facts)

    def describe(self) -> Iterable[Metric]:
        """Nothing is known before there is an app."""
        return []

    def collect(self) -> Iterable[Metric]:
        """The lag of each partition, and what the watchdog sees."""
        app = self._app
        if app is None or app.rebalancing_count == 0:
            return
        name = app.conf.id.removeprefix("chat4all-").replace("-", "_")
        declared = worker_catalogue(name)
        by_partition = declared[f"{name}_partition_lag_records"]
        lag = GaugeMetricFamily(by_partition.name, by_partition.sentence, labels=by_partition.label_names)
        for (topic, partition), records in sorted(partition_lags(app).items()):
            lag.add_metric([topic, str(partition)], records)
        yield lag
        stalled = declared[f"{name}_seconds_without_progress"]
        yield GaugeMetricFamily(stalled.name, stalled.sentence, value=self._watchdog.seconds_without_progress)


def partition_lags(app: StreamApp) -> dict[tuple[str, int], int]:
    """(topic, partition) -> records that Kafka has shown and that are not committed, of what the worker is assigned."""
    consumer = app.consumer
    return {
        (partition.topic, partition.partition): max(
            0, (consumer.highwater(partition) or 0) - (consumer._committed_offset.get(partition) or 0)
        )
        for partition in consumer.assignment()
    }
