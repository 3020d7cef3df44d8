"""`python -m stream_apps.delivery`: serves history, inbox and live streams over HTTP."""

from __future__ import annotations

import argparse
import gc
import logging
import socket

import uvicorn
from fastapi import FastAPI

from stream_apps.delivery.app import create_app
from stream_apps.delivery.live.commands import MAX_FRAME_BYTES
from stream_apps.delivery.settings import Settings
from stream_apps.delivery.state import State

GARBAGE_THRESHOLDS = (20_000, 10, 10)
"""Python's (700, 10, 10) look through all that thousands of open streams hold several times a second, for nothing:
what an event or a request leaves behind is gone without the collector."""


class Server(uvicorn.Server):
    """uvicorn, which waits for open connections before it tells the app to stop: streams must end first."""

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
        for server in self.servers:
            server.close()  # who is told to come back must not come back here
        state: State | None = getattr(self._app.state, "delivery", None)
        if state is not None:
            await state.streams.drain()
        await super().shutdown(sockets)


def make_config(app: FastAPI, *, host: str, port: int) -> uvicorn.Config:
    """How the server runs."""
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        loop="uvloop",
        http="httptools",
        # Without an I/O loop of its own, and with flow control both ways. Compression would cost each connection more
        # memory than everything else of it.
        ws="websockets-sansio",
        ws_max_size=MAX_FRAME_BYTES,
        ws_per_message_deflate=False,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=5,
    )


def main() -> None:
    """The command. SIGTERM and SIGINT end the streams and the requests in flight, then the process."""
    parser = argparse.ArgumentParser(
        prog="python -m stream_apps.delivery",
        description=__doc__,
        epilog="Settings are environment variables named CHAT4ALL_…; docs/operations.md lists them.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on [%(default)s]")
    parser.add_argument("--port", type=int, default=8001, help="port to listen on [%(default)s]")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    # At INFO it logs the whole address of each WebSocket, into which a careless client may put a token.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    app = create_app(Settings())
    Server(make_config(app, host=arguments.host, port=arguments.port), app).run()


if __name__ == "__main__":
    main()
