"""Wires admission and rate limits: the gate, and what works in the background for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from infra.telemetry.instruments import Instruments
from ingest_api.admission.gate import Gate, GateMetrics, Quotas
from ingest_api.admission.ladder import AdmissionMetrics, Ladder
from ingest_api.admission.model import Thresholds
from ingest_api.admission.sampler import Sampler, SlotReader
from ingest_api.catalogue import CATALOGUE
from ingest_api.database import connector
from ingest_api.limits.limiter import RateLimiter
from ingest_api.limits.shared import NoSharedBuckets, RedisBuckets
from ingest_api.settings import Settings


@dataclass
class Doors:
    """The gate and its background tasks. Start it, close it."""

    gate: Gate
    ladder: Ladder
    limiter: RateLimiter
    shared: RedisBuckets | NoSharedBuckets
    reader: SlotReader
    interval_seconds: float
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def start(self, queue_share: Callable[[], float]) -> None:
        """Begins to look at the slot and at the writer's queue, and to share what was admitted."""
        sampler = Sampler(self.ladder, self.reader.read, queue_share, interval_seconds=self.interval_seconds)
        self._tasks = [asyncio.create_task(sampler.run()), asyncio.create_task(self.limiter.run())]

    async def close(self) -> None:
        """Ends what start began."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.reader.close()
        await self.shared.close()


def open_doors(settings: Settings, registry: CollectorRegistry) -> Doors:
    """The doors as the settings want them. Nothing connects before it is needed."""
    shared: RedisBuckets | NoSharedBuckets = NoSharedBuckets()
    if settings.redis_host:
        shared = RedisBuckets(
            _redis(settings),
            timeout_seconds=settings.redis_timeout_seconds,
            retry_seconds=settings.redis_retry_seconds,
        )
    limits = Quotas(
        user_sends=settings.limit_user_sends,
        user_commands=settings.limit_user_commands,
        conversation_sends=settings.limit_conversation_sends,
        address_logins=settings.limit_address_logins,
        address_registrations=settings.limit_address_registrations,
        user_challenges=settings.limit_user_challenges,
        channel_challenges=settings.limit_channel_challenges,
        user_lookups=settings.limit_user_lookups,
    ).limits()
    limiter = RateLimiter(limits.values(), shared)
    make = Instruments(registry, CATALOGUE)
    make.gauge("ingest_api_rate_limits_are_local").set_function(lambda: float(shared.is_away))
    make.gauge("ingest_api_rate_limit_buckets").set_function(
        lambda: float(sum(len(limit.buckets) for limit in limits.values()))
    )
    ladder = Ladder(Thresholds(), AdmissionMetrics(registry))

    return Doors(
        gate=Gate(ladder, limits, limiter, GateMetrics(registry)),
        ladder=ladder,
        limiter=limiter,
        shared=shared,
        reader=SlotReader(connector(settings), slot=settings.admission_slot, budget_bytes=settings.admission_wal_bytes),
        interval_seconds=settings.admission_interval_seconds,
    )


def _redis(settings: Settings) -> Redis:
    return Redis(
        host=settings.redis_host,
        port=settings.redis_port,
        username=settings.redis_username or None,
        password=settings.redis_password.get_secret_value() or None,
        socket_connect_timeout=1.0,
        max_connections=16,
    )
