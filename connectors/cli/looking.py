"""Commands that show what is there and change nothing."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from connectors.cli.context import (
    CONNECT_URL,
    Context,
    Exit,
    Output,
    OutputOption,
    TimeoutOption,
    UrlOption,
    example,
    print_json,
    print_table,
)
from connectors.model import ConnectorStatus, Verdict


def add_to(cli: typer.Typer, context: Context) -> None:
    """Adds `status`."""

    @cli.command("status", epilog=example("status --output json"))
    def status_command(
        name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One connector; all when left out.")] = None,
        output: OutputOption = Output.table,
        timeout: TimeoutOption = 10,
        url: UrlOption = CONNECT_URL,
    ) -> None:
        """Show connectors and their tasks, with the causes of what FAILED."""
        with context.connected(url, timeout) as (client, _):
            names = client.names() if name is None else [name]
            statuses = [client.get_status(each) for each in names]
        if output is Output.json:
            print_json([_as_json(status) for status in statuses])
        else:
            _print_table(statuses)
        if any(status.verdict() is not Verdict.RUNNING for status in statuses):
            raise typer.Exit(Exit.FAILED)


def _print_table(statuses: list[ConnectorStatus]) -> None:
    rows: list[tuple[str, str, str, str]] = []
    for status in statuses:
        rows.append((status.name, "connector", status.connector.state, status.connector.worker_id))
        rows += [(status.name, f"task {task.id}", task.state, task.worker_id) for task in status.tasks]
    print_table(("CONNECTOR", "PART", "STATE", "WORKER"), rows)
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
