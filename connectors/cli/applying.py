"""Commands that compare what is declared with what Connect holds, and make them equal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from connectors.apply import apply
from connectors.cli.context import CONNECT_URL, Context, Exit, TimeoutOption, UrlOption, example, fail
from connectors.config_file import ConnectorFile, UnusableFile, read_connector_file
from connectors.model import ConnectorStatus, redact
from connectors.reconcile import Create, Plan, Update


def add_to(cli: typer.Typer, context: Context) -> None:
    """Adds `apply`."""

    @cli.command("apply", epilog=example("apply connectors/configs/outbox.json"))
    def apply_command(
        file: Annotated[Path, typer.Argument(metavar="FILE", help='A connector file: {"name": ..., "config": {...}}.')],
        timeout: TimeoutOption = 60,
        url: UrlOption = CONNECT_URL,
    ) -> None:
        """Make Kafka Connect hold exactly the settings of FILE, and wait until connector and tasks run.

        May be run any number of times; says "unchanged" when there is nothing to do. What FAILED under unchanged
        settings is restarted once."""
        try:
            connector = read_connector_file(file)
        except UnusableFile as error:
            fail(str(error), Exit.MISUSED)
        with context.connected(url, timeout, connector.config) as (client, deadline):
            status = apply(
                client,
                connector,
                deadline,
                on_plan=lambda plan: _print_plan(connector, plan),
                on_restart=lambda status: _print_restart(connector, status),
            )
            typer.echo(f"{status.name} runs: {status.summary()}")


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
