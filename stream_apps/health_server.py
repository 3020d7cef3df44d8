"""A stream app's /metrics and /healthz, on a thread of its own: they answer while the app is busy."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from socketserver import TCPServer
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

LOOP_SECONDS = 1.5
"""How long the app's event loop may take to say how it is."""


@dataclass(frozen=True, slots=True)
class Health:
    """How an app is. `status` is one word, `facts` what it was decided from."""

    is_healthy: bool
    status: str
    facts: dict[str, Any] = field(default_factory=dict)


class HealthServer:
    """Serves the registry, and what `ask` says, which is asked in the app's event loop: one that is stuck does not
    answer, and that is unhealthy. A part of a stream app."""

    def __init__(
        self,
        port: int,
        registry: CollectorRegistry,
        ask: Callable[[], Awaitable[Health]],
        *,
        host: str = "127.0.0.1",
    ) -> None:
        self._address = (host, port)
        self._metrics = make_wsgi_app(registry, disable_compression=True)
        self._ask = ask
        self._loop: asyncio.AbstractEventLoop | None = None

    async def open(self) -> None:
        """Listens."""
        self._loop = asyncio.get_running_loop()
        self._server = make_server(*self._address, self._answer, _Server, _Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """Stops listening."""
        # A request in flight may wait for this loop.
        await asyncio.to_thread(self._server.shutdown)
        self._server.server_close()
        self._thread.join()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._server.server_port)

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            answer: Iterable[bytes] = self._metrics(environ, start_response)
            return answer
        if path != "/healthz":
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"There are /healthz and /metrics.\n"]
        health = self._health()
        status = "200 OK" if health.is_healthy else "503 Service Unavailable"
        start_response(status, [("Content-Type", "application/json"), ("Cache-Control", "no-store")])
        return [json.dumps({"status": health.status, **health.facts}).encode() + b"\n"]

    def _health(self) -> Health:
        assert self._loop is not None  # noqa: S101 - it listens, so it was opened
        asked = asyncio.run_coroutine_threadsafe(_said_by(self._ask), self._loop)
        try:
            return asked.result(LOOP_SECONDS)
        except TimeoutError:
            asked.cancel()
            return Health(False, "stuck", {"detail": f"the event loop did not answer within {LOOP_SECONDS:g} s"})
        except Exception as error:
            return Health(False, "unknown", {"detail": f"{type(error).__name__}: {error}"})


async def _said_by(ask: Callable[[], Awaitable[Health]]) -> Health:
    return await ask()


class _Server(ThreadingWSGIServer):
    """It listens on an address, so no name need be looked up for it (that takes seconds where there is no resolver)."""

    def server_bind(self) -> None:
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "localhost", self.server_address[1]
        self.setup_environ()


class _Handler(WSGIRequestHandler):
    """Bounded in time, and without a log line per request."""

    timeout = 5.0

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing."""
