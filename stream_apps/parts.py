"""Parts that several stream apps open when they start and close when they stop."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, start_http_server
from redis.asyncio import Redis


def make_registry() -> CollectorRegistry:
    """A registry with what every process tells of itself."""
    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    return registry


class MetricsServer:
    """Serves the registry on loopback, on a thread of its own: it answers while the app is busy."""

    def __init__(self, port: int, registry: CollectorRegistry) -> None:
        self._port = port
        self._registry = registry

    async def open(self) -> None:
        self._server, self._thread = start_http_server(self._port, addr="127.0.0.1", registry=self._registry)

    async def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class RedisPart:
    """Closes the client; it connects by itself."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def open(self) -> None:
        """Nothing: the client connects when it is first used."""

    async def close(self) -> None:
        await self._redis.aclose()
