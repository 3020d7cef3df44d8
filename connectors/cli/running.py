"""Commands that change whether a connector runs."""

from __future__ import annotations

from typing import Annotated

import typer

from connectors.cli.context import CONNECT_URL, Context, TimeoutOption, UrlOption, example


def add_to(cli: typer.Typer, context: Context) -> None:
    """Adds `delete`."""

    @cli.command("delete", epilog=example("delete chat4all-outbox --yes"))
    def delete_command(
        name: Annotated[str, typer.Argument(metavar="NAME", help="The connector.")],
        yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
        timeout: TimeoutOption = 10,
        url: UrlOption = CONNECT_URL,
    ) -> None:
        """Delete a connector. Its replication slot stays, and holds WAL until it is dropped or read again."""
        with context.connected(url, timeout) as (client, _):
            client.get_status(name)
            if not yes:
                typer.confirm(f"Delete the connector {name}? Nothing is streamed from then on.", abort=True)
            client.delete(name)
            typer.echo(f"deleted {name}")
