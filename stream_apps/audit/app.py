"""Wires the audit program, and runs it until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import time
from datetime import datetime
from typing import Any

from aiokafka.errors import KafkaError
from redis.exceptions import RedisError

from infra.telemetry.instruments import make_registry
from stream_apps.audit.auditor import Auditor
from stream_apps.audit.comparison import Comparison
from stream_apps.audit.healer import Healer
from stream_apps.audit.marker import Marker
from stream_apps.audit.settings import AuditSettings
from stream_apps.audit.tables import TableReader
from stream_apps.audit.telemetry import AuditMetrics
from stream_apps.audit.topic import TopicReader
from stream_apps.backfill_run import Backfill, Pace
from stream_apps.clients import make_redis
from stream_apps.health_server import Health, HealthServer
from stream_apps.log_reader import LogUnavailable
from stream_apps.log_scanner import LogScanner
from stream_apps.rebuilding import Rebuilder

logger = logging.getLogger(__name__)

STUCK_SECONDS = 120.0
"""A look that takes this long is no look any more."""


class Audit:
    """The program: looks, heals and repairs, whatever is away meanwhile."""

    def __init__(self, settings: AuditSettings) -> None:
        self._settings = settings
        registry = make_registry()
        self._metrics = AuditMetrics(registry)
        login = settings.database_arguments() | {"application_name": "chat4all audit"}
        self._log = LogScanner(login)
        self._redis = make_redis(settings, timeout_seconds=15)
        rebuilder = Rebuilder(self._log, self._redis)
        comparison = Comparison(self._log, TableReader(self._redis))
        topic = TopicReader(settings.kafka_bootstrap)
        self._auditor = Auditor(settings, self._log, comparison, rebuilder, topic, self._metrics)
        # Healing has a rebuilder of its own: what it knows of users is its own, too.
        healing = Rebuilder(self._log, self._redis)
        backfill = Backfill(self._log, healing, pace=Pace(settings.audit_heal_rate), patience_seconds=0)
        self._healer = Healer(settings, self._log, Marker(self._redis), healing, backfill, self._metrics)
        self._server = HealthServer(settings.metrics_port, registry, self._ask, host=settings.metrics_host)
        self._began_look = time.monotonic()
        self._obstacle: str | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set."""
        async with self._log, self._redis:
            await self._server.open()
            gc.collect()
            gc.freeze()
            try:
                await self._look_until(stop)
            finally:
                await self._healer.close()
                await self._auditor.close()
                await self._server.close()

    async def _look_until(self, stop: asyncio.Event) -> None:
        looked_until: datetime | None = None
        while not stop.is_set():
            self._began_look = time.monotonic()
            try:
                await self._healer.look(looked_until)
                looked_until = await self._auditor.look(tables_are_whole=not self._healer.is_healing)
                self._obstacle = None
            except (LogUnavailable, RedisError, KafkaError) as error:
                self._metrics.failed_looks_total.inc()
                obstacle = f"{type(error).__name__}: {error}"
                if obstacle != self._obstacle:
                    logger.warning("cannot look: %s", obstacle)
                self._obstacle = obstacle
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), self._settings.audit_look_seconds)

    async def _ask(self) -> Health:
        """Healthy while it looks, or knows why it cannot: a restart would not help then."""
        seconds = time.monotonic() - self._began_look
        facts: dict[str, Any] = {"seconds_since_look": round(seconds, 1), "is_healing": self._healer.is_healing}
        if self._obstacle is not None:
            facts["detail"] = self._obstacle
        if seconds > STUCK_SECONDS + self._settings.audit_look_seconds:
            return Health(False, "stuck", facts)
        return Health(True, "waiting" if self._obstacle else "running", facts)
