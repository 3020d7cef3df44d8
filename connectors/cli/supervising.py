"""The command that goes on running: keeps declared connectors alive."""

from __future__ import annotations

import logging
import signal
import threading
from contextlib import ExitStack
from typing import Annotated

import typer
from prometheus_client import start_http_server
from pythonjsonlogger.json import JsonFormatter

from connectors.cli.applying import EnvironmentOption, Paths, declared
from connectors.cli.context import CONNECT_URL, Context, Exit, UrlOption, example, fail
from connectors.database import Database, DatabaseUnreachable, find_address
from connectors.supervise.telemetry import SuperviseMetrics
from connectors.supervise.watch import Chance, Watch
from infra.telemetry.instruments import make_registry

logger = logging.getLogger("connectors.supervise")


def add_to(cli: typer.Typer, context: Context) -> None:
    """Adds `supervise`."""

    @cli.command("supervise", epilog=example("supervise connectors/configs --metrics-port 9104"))
    def supervise_command(
        paths: Paths = None,
        environment: EnvironmentOption = None,
        interval: Annotated[float, typer.Option(min=0.1, help="Seconds from one look to the next.")] = 1.0,
        metrics_host: Annotated[
            str, typer.Option(envvar="CHAT4ALL_METRICS_HOST", help="Address on which metrics are served.")
        ] = "127.0.0.1",
        metrics_port: Annotated[
            int, typer.Option(envvar="CHAT4ALL_METRICS_PORT", min=0, max=65535, help="Port of the metrics; 0: none.")
        ] = 9104,
        url: UrlOption = CONNECT_URL,
    ) -> None:
        """Keep the declared connectors running, until it is told to end (SIGTERM).

        Restarts what FAILED, within seconds at first, then with growing pauses; restarts what says RUNNING and does not
        beat; says what needs a person. Leaves alone what was paused or stopped, and what is not declared. Several may
        run: the one that holds a lock in PostgreSQL acts. Without CHAT4ALL_DATABASE_HOST it knows no slots and no
        heartbeats, and only one may run."""
        declaration = declared(paths, environment)
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        _log_as_json()
        try:
            address = find_address(context.environ)
        except DatabaseUnreachable as error:
            fail(str(error), Exit.MISUSED)
        if address is None:
            logger.warning("CHAT4ALL_DATABASE_HOST is not set: slots and heartbeats are unknown, and no other may run.")
        registry = make_registry()
        with ExitStack() as stack:
            workers = context.open_workers(url, stack)
            database = Database(address, application_name="chat4all supervise") if address else None
            if database is not None:
                stack.callback(database.close)
            if metrics_port:
                try:
                    server, _ = start_http_server(metrics_port, metrics_host, registry)
                except OSError as error:
                    fail(f"metrics cannot be served at {metrics_host}:{metrics_port}: {error.strerror}.")
                stack.callback(server.shutdown)
            chance = Chance(clock=context.clock, sleep=context.sleep)
            watch = Watch(workers, declaration, database, SuperviseMetrics(registry), chance)
            names = ", ".join(connector.name for connector in declaration.connectors)
            logger.info("Looks after %s.", names)
            watch.run(stop, interval_seconds=interval)
        logger.info("Ends, as it was told.")


def _log_as_json() -> None:
    """One JSON object per line on standard error, as the other programs log."""
    handler = logging.StreamHandler()
    handler.setFormatter(
        JsonFormatter(
            "%(levelname)s %(name)s %(message)s",
            rename_fields={"levelname": "level", "name": "logger"},
            timestamp="time",
        )
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it would log every look
