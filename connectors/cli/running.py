"""Commands that change whether a connector runs."""

from __future__ import annotations

from typing import Annotated

import typer

from connectors.cli.context import CONNECT_URL, Context, TimeoutOption, UrlOption, example, fail
from connectors.cli.looking import NameArgument
from connectors.config_file import TargetState


def add_to(cli: typer.Typer, context: Context) -> None:
    """Adds `pause`, `resume`, `stop`, `restart` and `delete`."""
    _add_state(
        cli,
        context,
        "pause",
        TargetState.paused,
        "Have a connector pause: its task stays, and holds its replication slot. `resume` ends it.",
    )
    _add_state(cli, context, "resume", TargetState.running, "Have a paused or stopped connector run again.")
    _add_state(
        cli,
        context,
        "stop",
        TargetState.stopped,
        "Have a connector stop: its tasks end and let go of its replication slot, which holds WAL from then on."
        " `resume` ends it. Only then may offsets be changed.",
    )

    @cli.command("restart", epilog=example("restart chat4all-outbox --failed"))
    def restart_command(
        name: NameArgument,
        failed: Annotated[bool, typer.Option("--failed", help="Only what FAILED; leave alone what runs.")] = False,
        timeout: TimeoutOption = 30,
        url: UrlOption = CONNECT_URL,
    ) -> None:
        """Restart a connector and its tasks."""
        with context.connected(url, timeout) as (client, _):
            client.restart(name, only_failed=failed)
        typer.echo(f"restarting {'what failed in ' if failed else ''}{name}")

    @cli.command("delete", epilog=example("delete chat4all-outbox --yes"))
    def delete_command(
        name: NameArgument,
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


_STATES = {TargetState.running: "RUNNING", TargetState.paused: "PAUSED", TargetState.stopped: "STOPPED"}


def _add_state(cli: typer.Typer, context: Context, verb: str, state: TargetState, help_text: str) -> None:
    @cli.command(verb, help=help_text, epilog=example(f"{verb} chat4all-outbox"))
    def state_command(name: NameArgument, timeout: TimeoutOption = 30, url: UrlOption = CONNECT_URL) -> None:
        with context.connected(url, timeout) as (client, deadline):
            client.get_status(name)
            client.set_state(name, state)
            while not (status := client.get_status(name)).is_told(_STATES[state]):
                if not deadline.pause(0.2):
                    fail(f"{name} is not {state} after {timeout:g} s: {status.summary()}.")
            typer.echo(f"{name}: {status.summary()}")
