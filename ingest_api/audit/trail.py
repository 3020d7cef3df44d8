"""What the API writes into the audit log, and when it waits for that.

A fact about security (a login, a key) is recorded before it takes effect: if it cannot be recorded, the request fails.
Refusals are recorded on the side and within a budget, since whoever is refused chooses how often: what goes over the
budget or cannot be written is counted, and the count is recorded.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from dataclasses import replace

from prometheus_client import CollectorRegistry
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.telemetry.instruments import Instruments
from ingest_api.catalogue import CATALOGUE
from ingest_api.group_commit import Connect, GroupCommit, Limits, Statement
from ingest_api.limits.buckets import Limit
from ingest_api.limits.quotas import Quota
from ingest_api.security.events import SecurityEvent
from schemas.problems import ProblemError

logger = logging.getLogger(__name__)

REFUSALS_RECORDED = Quota(hits=200, seconds=20)
"""Refusals that are recorded: 200 at once, ten per second in the long run, of each process."""

RECORD = (
    "SELECT recorded.position FROM record_audit_events(%s::text[], %s::text[], %s::text[])"
    " WITH ORDINALITY AS recorded (position, place) ORDER BY place"
)


def record_arguments(events: list[SecurityEvent]) -> tuple[list[str], list[str | None], list[str]]:
    """The arguments of `record_audit_events`."""
    details = [json.dumps(event.detail, ensure_ascii=False, sort_keys=True) for event in events]
    return [event.action for event in events], [event.actor_id for event in events], details


RECORD_EVENTS: Statement[SecurityEvent, int] = Statement(RECORD, record_arguments, int)


class AuditTrail:
    """The way into the audit log. Its writer is to be started first and closed last."""

    def __init__(
        self,
        connect: Connect,
        limits: Limits,
        registry: CollectorRegistry,
        describe: Callable[[], dict[str, str]] = dict,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`describe` tells of the request that is being answered; that is added to every event's detail."""
        self.writer = GroupCommit(connect, RECORD_EVENTS, limits)
        self._describe = describe
        self._clock = clock
        self._budget = Limit("audit-refusals", REFUSALS_RECORDED)
        self._dropped = 0
        self._notes: set[asyncio.Task[None]] = set()
        make = Instruments(registry, CATALOGUE)
        self._recorded_total = make.counter("ingest_api_audit_recorded_total")
        self._dropped_total = make.counter("ingest_api_audit_dropped_total")

    async def record(self, event: SecurityEvent) -> None:
        """Returns when the event is on disk. Raises DatabaseUnavailable, WriterSaturated: then what it tells of must
        not happen."""
        await self._write(self._described(event))

    async def record_in(self, connection: AsyncConnection, event: SecurityEvent) -> None:
        """Records what a transaction does, in that transaction. To be called last: others wait until it ends."""
        arguments = record_arguments([self._described(event)])
        await connection.exec_driver_sql(RECORD, arguments)
        self._recorded_total.labels(event.action).inc()

    def tell(self, event: SecurityEvent) -> None:
        """Records something that has happened already, without a wait: if it cannot be written, it is counted."""
        self._keep(self._described(event))

    def note(self, event: SecurityEvent) -> None:
        """Records a refusal, without a wait and as far as the budget goes."""
        now = self._clock()
        if self._budget.stand("", 1, now).wait_seconds > 0:
            self._drop(1)
            return
        self._budget.count("", 1, now)
        self._keep(self._described(event))
        self._tell_dropped()

    async def finish_notes(self) -> None:
        """Returns when all refusals so far are on disk, or were tried to be."""
        self._tell_dropped()
        await asyncio.gather(*self._notes)

    def _described(self, event: SecurityEvent) -> SecurityEvent:
        return replace(event, detail={**event.detail, **self._describe()})

    async def _write(self, event: SecurityEvent) -> None:
        await self.writer.write_one(event)
        self._recorded_total.labels(event.action).inc()

    def _tell_dropped(self) -> None:
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            self._keep(SecurityEvent("audit.dropped", None, {"refusals": str(dropped)}))

    def _keep(self, event: SecurityEvent) -> None:
        task = asyncio.create_task(self._write_or_drop(event))
        self._notes.add(task)
        task.add_done_callback(self._notes.discard)

    async def _write_or_drop(self, event: SecurityEvent) -> None:
        try:
            await self._write(event)
        except ProblemError as error:
            self._drop(int(event.detail["refusals"]) if event.action == "audit.dropped" else 1)
            logger.warning("%s could not be recorded: %s", event.action, error.detail)

    def _drop(self, count: int) -> None:
        self._dropped += count
        self._dropped_total.inc(count)
