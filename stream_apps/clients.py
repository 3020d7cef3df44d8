"""The clients that the stream side's programs are wired with."""

from __future__ import annotations

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from stream_apps.redis_tables.connection import PackingConnection
from stream_apps.settings import StreamSettings


def make_redis(settings: StreamSettings, *, timeout_seconds: float = 5) -> Redis:
    """A client that packs long commands quickly and retries nothing by itself. It connects when it is first used."""
    connections: ConnectionPool = ConnectionPool(
        PackingConnection,
        host=settings.redis_host,
        port=settings.redis_port,
        db=settings.redis_database,
        password=settings.redis_password.get_secret_value() or None,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=2,
        retry=Retry(NoBackoff(), 0),
    )
    return Redis.from_pool(connections)


class RedisPart:
    """A part of a stream app: closes the client, which connects by itself."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def open(self) -> None:
        """Nothing: the client connects when it is first used."""

    async def close(self) -> None:
        """Closes it."""
        await self._redis.aclose()
