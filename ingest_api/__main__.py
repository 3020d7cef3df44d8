"""`python -m ingest_api`: serves the ingest API over HTTP."""

from __future__ import annotations

import argparse
import gc
import socket

import uvicorn
from fastapi import FastAPI

from ingest_api.app import create_app
from ingest_api.logs import configure_logging
from ingest_api.settings import Settings

GARBAGE_THRESHOLDS = (20_000, 10, 10)
"""Python's (700, 10, 10) look through all that thousands of connections hold several times a second, for nothing:
what a request leaves behind is gone without the collector."""


class Server(uvicorn.Server):
    """uvicorn, which closes its port and waits for the requests in flight; those that still come over connections
    that are open are refused (503, `Connection: close`)."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # What is there now stays: the collector need not look at it again (it took 100 ms, once per second of load).
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GARBAGE_THRESHOLDS)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._app.state.gate.close()
        await super().shutdown(sockets)


def main() -> None:
    """The command. SIGTERM and SIGINT finish the requests in flight, then end the process."""
    parser = argparse.ArgumentParser(
        prog="python -m ingest_api",
        description=__doc__,
        epilog="Settings are environment variables named CHAT4ALL_…; docs/settings.md lists them.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on [%(default)s]")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on [%(default)s]")
    arguments = parser.parse_args()
    settings = Settings()
    configure_logging(settings.log_level)
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=arguments.host,
        port=arguments.port,
        loop="uvloop",
        http=app.state.connection,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=settings.shutdown_seconds,
    )
    Server(config, app).run()


if __name__ == "__main__":
    main()
