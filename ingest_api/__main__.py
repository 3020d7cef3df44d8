"""`python -m ingest_api`: serves the ingest API over HTTP."""

from __future__ import annotations

import argparse
import logging

import uvicorn

from ingest_api.app import create_app
from ingest_api.settings import Settings


def main() -> None:
    """The command. SIGTERM and SIGINT finish the requests in flight, then end the process."""
    parser = argparse.ArgumentParser(
        prog="python -m ingest_api",
        description=__doc__,
        epilog="Settings are environment variables named CHAT4ALL_…; docs/operations.md lists them.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on [%(default)s]")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on [%(default)s]")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("authlib").setLevel(logging.INFO)  # at DEBUG it would log tokens
    uvicorn.run(
        create_app(Settings()),
        host=arguments.host,
        port=arguments.port,
        loop="uvloop",
        http="httptools",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=10,
    )


if __name__ == "__main__":
    main()
