"""The command line: says what happened; decides nothing. Each module holds a group of commands and adds them to a typer
app by `add_to`."""

from __future__ import annotations

import typer

from connectors.cli import (
    applying,
    doctoring,
    log_commands,
    looking,
    offset_commands,
    outbox_commands,
    recovering,
    running,
    supervising,
)
from connectors.cli.context import Context, make_group


def create_app(context: Context | None = None) -> typer.Typer:
    """The command line as a typer app."""
    cli = make_group("Applies, inspects and runs the connectors of Chat4All over Kafka Connect's REST.", "plan")
    context = context or Context()
    for group in (
        applying,
        looking,
        running,
        offset_commands,
        log_commands,
        doctoring,
        recovering,
        outbox_commands,
        supervising,
    ):
        group.add_to(cli, context)
    return cli
