"""The ladder at work: holds the state, tells of its changes, and answers what is taken now."""

from __future__ import annotations

import logging
import secrets

from prometheus_client import CollectorRegistry

from infra.telemetry.instruments import Instruments
from ingest_api.admission.model import (
    ADMITTED_SHARE,
    RETRY_SECONDS,
    AdmissionState,
    Reading,
    RequestClass,
    Shedder,
    SlotSample,
    Thresholds,
    next_state,
)
from ingest_api.admission.refusals import Overloaded
from ingest_api.catalogue import CATALOGUE

logger = logging.getLogger(__name__)

SENTENCES = {
    AdmissionState.GREEN: "Everything is taken.",
    AdmissionState.YELLOW: "Change data capture or the writer is behind: batches are refused.",
    AdmissionState.ORANGE: "Change data capture or the writer is far behind: batches and half the writes are refused.",
    AdmissionState.RED: "Change data capture or the writer is too far behind: writes are refused, reads go on.",
    AdmissionState.LOST: "The replication slot is lost, missing or being recovered: writes are refused until then.",
}


class AdmissionMetrics:
    """What admission shows."""

    def __init__(self, registry: CollectorRegistry) -> None:
        make = Instruments(registry, CATALOGUE)
        self.state = make.gauge("ingest_api_admission_state")
        self.slot_lag_bytes = make.gauge("ingest_api_slot_lag_bytes")
        self.slot_lag_seconds = make.gauge("ingest_api_slot_lag_seconds")
        self.wal_headroom_bytes = make.gauge("ingest_api_wal_headroom_bytes")
        self.refused_total = make.counter("ingest_api_admission_refused_total")
        self.failed_samples_total = make.counter("ingest_api_admission_failed_samples_total")


class Ladder:
    """One state for the whole process. Not for threads: everything happens on the event loop."""

    def __init__(self, thresholds: Thresholds, metrics: AdmissionMetrics) -> None:
        self.state = AdmissionState.GREEN
        self.metrics = metrics
        self._thresholds = thresholds
        self._slot: SlotSample | None = None
        self._queue_share = 0.0
        self._shedder = Shedder()

    def see_slot(self, sample: SlotSample) -> None:
        """Takes a new reading of the slot."""
        self._slot = sample
        self.metrics.slot_lag_bytes.set(sample.held_bytes)
        self.metrics.slot_lag_seconds.set(sample.lag_seconds)
        self.metrics.wal_headroom_bytes.set(sample.headroom_bytes)
        self._step()

    def see_queue(self, share: float) -> None:
        """Takes a new reading of the writer's queue."""
        self._queue_share = share
        self._step()

    def check(self, request_class: RequestClass) -> None:
        """Raises Overloaded when this request is not taken now. Costs next to nothing while the state is green."""
        state = self.state
        if state is AdmissionState.GREEN or self._shedder.takes(request_class, ADMITTED_SHARE[state][request_class]):
            return
        self.metrics.refused_total.labels(request_class.value, state.name.lower()).inc()
        least, most = RETRY_SECONDS[state]
        raise Overloaded(
            SENTENCES[state],
            headers={"Retry-After": str(least + secrets.randbelow(most - least + 1))},
            admission=state.name.lower(),
        )

    def _step(self) -> None:
        before = self.state
        self.state = next_state(before, Reading(self._slot, self._queue_share), self._thresholds)
        if self.state is not before:
            self.metrics.state.set(self.state)
            level = logging.WARNING if self.state > before else logging.INFO
            slot = self._slot
            logger.log(
                level,
                "admission: %s -> %s. %s",
                before.name.lower(),
                self.state.name.lower(),
                SENTENCES[self.state],
                extra={
                    "slot_used_share": round(slot.used_share, 4) if slot else None,
                    "slot_lag_seconds": round(slot.lag_seconds, 1) if slot else None,
                    "slot_status": slot.status if slot else None,
                    "queue_share": round(self._queue_share, 4),
                },
            )
