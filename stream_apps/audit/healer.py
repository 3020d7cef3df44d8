"""Fills tables that were lost, and brings forward those that were taken back, as the marker tells."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from datetime import datetime, timedelta

from stream_apps.audit.marker import Marker, Verdict
from stream_apps.audit.settings import AuditSettings
from stream_apps.audit.telemetry import AuditMetrics
from stream_apps.backfill_run import AWAY, Backfill, Selection
from stream_apps.log_scanner import LogScanner
from stream_apps.rebuilding import Rebuilder

logger = logging.getLogger(__name__)

MARGIN = timedelta(seconds=120)
"""The marker is a little ahead of what is certain: entries may have been late when they were looked for."""

RETRY_SECONDS = 2.0


class Healer:
    """Watches the marker, and heals in a task of its own. `look` raises redis.RedisError."""

    def __init__(
        self,
        settings: AuditSettings,
        log: LogScanner,
        marker: Marker,
        rebuilder: Rebuilder,
        backfill: Backfill,
        metrics: AuditMetrics,
    ) -> None:
        self._lately = timedelta(seconds=settings.audit_lately_seconds)
        self._log = log
        self._marker = marker
        self._rebuilder = rebuilder
        self._backfill = backfill
        self._metrics = metrics
        self._is_known = False
        self._task: asyncio.Task[None] | None = None

    @property
    def is_healing(self) -> bool:
        """Whether tables are being filled."""
        return self._task is not None and not self._task.done()

    async def look(self, looked_until: datetime | None) -> None:
        """Moves the marker, and begins to heal if it tells so."""
        if self._task is not None and self._task.done():
            self._task.result()
            self._task = None
        reason = "start"
        if self._is_known:
            moved = await self._marker.move(looked_until or self._marker.checked_until)
            if moved is Verdict.OK:
                return
            reason = moved.value
        # Another process, or an earlier life of Redis, may have left a marker: then that one holds.
        verdict = await self._marker.adopt()
        if verdict is Verdict.LOST:
            await self._marker.begin(await self._log.read_clock())
            reason = verdict.value
        self._is_known = True
        await self.close()
        logger.log(logging.INFO if reason == "start" else logging.WARNING, "healing the tables: %s", reason)
        self._metrics.heals_total.labels(reason).inc()
        self._metrics.healing.set(1)
        is_partial = verdict is not Verdict.OK
        self._task = asyncio.create_task(self._heal(self._marker.checked_until, is_partial=is_partial))

    async def close(self) -> None:
        """Stops healing."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _heal(self, checked_until: datetime, *, is_partial: bool) -> None:
        while True:
            try:
                await self._fill(checked_until, is_partial=is_partial)
            except AWAY as error:
                logger.warning("healing waits: %s: %s", type(error).__name__, error)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                break
        self._metrics.healing.set(0)

    async def _fill(self, checked_until: datetime, *, is_partial: bool) -> None:
        self._rebuilder.forget_users()
        since = await self._log.read_clock() - self._lately if is_partial else checked_until - MARGIN
        progress = await self._backfill.run(Selection(since=since))
        logger.info("healed what was touched since %s: %s", since.isoformat(timespec="seconds"), progress.describe())
        if is_partial:
            progress = await self._backfill.run(Selection())
            logger.info("healed everything: %s", progress.describe())
            await self._marker.move(checked_until, is_whole=True)
