"""The command line: applies connector files, shows status, deletes. Says what happened; decides nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import httpx
import typer

from connectors.apply import apply
from connectors.config_file import ConnectorFile, UnusableFile, read_connector_file
from connectors.connect import ConnectClient, ConnectError, Deadline
from connectors.model import ConnectorStatus, Verdict, redact
from connectors.reconcile import Create, Plan, Update

EXIT_CODES = (
    "Exit codes: 0 done, and everything runs; 1 Kafka Connect is unreachable or refuses, the connector is unknown,"
    " or something does not run; 2 the command line or the file is wrong."
)


class Output(StrEnum):
    """How `status` prints: for people or for programs."""

    table = "table"
    json = "json"


Url = Annotated[
    str, typer.Option("--url", envvar="CHAT4ALL_CONNECT_URL", help="Kafka Connect's REST address, without a path.")
]
Timeout = Annotated[float, typer.Option("--timeout", min=1, help="Seconds after which to give up.")]


def create_app(
    http_client: Callable[[str], httpx.Client] | None = None,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> typer.Typer:
    """The command line as a typer app. `http_client` makes the client for a base URL."""
    make_http = http_client or (lambda url: httpx.Client(base_url=url, trust_env=False))
    cli = typer.Typer(
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        epilog=EXIT_CODES,
        help="Applies and inspects the connectors of Chat4All over Kafka Connect's REST.",
    )

    @contextmanager
    def connected(url: str, timeout: float, config: Mapping[str, str]) -> Iterator[tuple[ConnectClient, Deadline]]:
        """A client; what goes wrong with it becomes a sentence without this config's secrets, and exit code 1."""
        deadline = Deadline(timeout, clock=clock, sleep=sleep)
        with make_http(_checked(url)) as http:
            try:
                yield ConnectClient(http, deadline), deadline
            except ConnectError as error:
                _fail(redact(str(error), config), code=1)

    @cli.command("apply", epilog=f"Example: chat4all-connectors apply connectors/configs/outbox.json. {EXIT_CODES}")
    def apply_command(
        file: Annotated[Path, typer.Argument(metavar="FILE", help='A connector file: {"name": ..., "config": {...}}.')],
        timeout: Timeout = 60,
        url: Url = "http://127.0.0.1:8083",
    ) -> None:
        """Make Kafka Connect hold exactly the settings of FILE, and wait until connector and tasks run.

        May be run any number of times; says "unchanged" when there is nothing to do. What FAILED under unchanged
        settings is restarted once."""
        try:
            connector = read_connector_file(file)
        except UnusableFile as error:
            _fail(str(error), code=2)
        with connected(url, timeout, connector.config) as (client, deadline):
            status = apply(
                client,
                connector,
                deadline,
                on_plan=lambda plan: _print_plan(connector, plan),
                on_restart=lambda status: _print_restart(connector, status),
            )
            typer.echo(f"{status.name} runs: {status.summary()}")

    @cli.command("status", epilog=f"Example: chat4all-connectors status --output json. {EXIT_CODES}")
    def status_command(
        name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One connector; all when left out.")] = None,
        output: Annotated[Output, typer.Option("--output", "-o", help="For people or for programs.")] = Output.table,
        timeout: Timeout = 10,
        url: Url = "http://127.0.0.1:8083",
    ) -> None:
        """Show connectors and their tasks, with the causes of what FAILED."""
        with connected(url, timeout, {}) as (client, _):
            names = client.names() if name is None else [name]
            statuses = [client.get_status(each) for each in names]
        if output is Output.json:
            typer.echo(json.dumps([_as_json(status) for status in statuses], indent=2, ensure_ascii=False))
        else:
            _print_table(statuses)
        if any(status.verdict() is not Verdict.RUNNING for status in statuses):
            raise typer.Exit(1)

    @cli.command("delete", epilog=f"Example: chat4all-connectors delete chat4all-outbox --yes. {EXIT_CODES}")
    def delete_command(
        name: Annotated[str, typer.Argument(metavar="NAME", help="The connector.")],
        yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
        timeout: Timeout = 10,
        url: Url = "http://127.0.0.1:8083",
    ) -> None:
        """Delete a connector. Its replication slot stays, and holds WAL until it is dropped or read again."""
        with connected(url, timeout, {}) as (client, _):
            client.get_status(name)
            if not yes:
                typer.confirm(f"Delete the connector {name}? Nothing is streamed from then on.", abort=True)
            client.delete(name)
            typer.echo(f"deleted {name}")

    return cli


def _checked(url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        parsed = httpx.URL()
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.userinfo or parsed.path != "/":
        _fail("--url must be an http or https address without a user, a password or a path in it.", code=2)
    return url


def _fail(sentence: str, *, code: int) -> NoReturn:
    typer.echo(f"error: {sentence}", err=True)
    raise typer.Exit(code)


def _print_plan(connector: ConnectorFile, plan: Plan) -> None:
    match plan:
        case Create():
            typer.echo(f"creating {connector.name}")
        case Update(changes=changes):
            typer.echo(f"updating {connector.name}:")
            for change in changes:
                typer.echo(f"  {change.describe()}")
        case _:
            typer.echo(f"unchanged {connector.name}")


def _print_restart(connector: ConnectorFile, status: ConnectorStatus) -> None:
    typer.echo(f"restarting what failed in {status.name}:")
    for failure in status.failures():
        typer.echo(f"  {redact(failure, connector.config)}")


def _print_table(statuses: list[ConnectorStatus]) -> None:
    rows = [("CONNECTOR", "PART", "STATE", "WORKER")]
    for status in statuses:
        rows.append((status.name, "connector", status.connector.state, status.connector.worker_id))
        rows += [(status.name, f"task {task.id}", task.state, task.worker_id) for task in status.tasks]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for status in statuses:
        for failure in status.failures():
            typer.echo(f"{status.name}, {failure}")


def _as_json(status: ConnectorStatus) -> dict[str, Any]:
    return {
        "name": status.name,
        "verdict": status.verdict().value,
        "connector": {"state": status.connector.state, "worker_id": status.connector.worker_id},
        "tasks": [{"id": t.id, "state": t.state, "worker_id": t.worker_id} for t in status.tasks],
        "failures": status.failures(),
    }
