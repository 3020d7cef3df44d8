"""Commands about what Connect's workers log."""

from __future__ import annotations

from typing import Annotated

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
    fail,
    make_group,
    print_json,
    print_table,
)

LEVELS = ("OFF", "FATAL", "ERROR", "WARN", "INFO", "DEBUG", "TRACE", "ALL")


def add_to(cli: typer.Typer, context: Context) -> None:
    """Adds the group `logs`: `level`."""
    group = make_group("What Connect's workers log.", "logs level io.debezium")
    cli.add_typer(group, name="logs")

    @group.callback()
    def logs_group() -> None:
        """What Connect's workers log."""

    @group.command("level", epilog=example("logs level io.debezium.connector.postgresql DEBUG"))
    def level_command(
        logger: Annotated[str | None, typer.Argument(metavar="[LOGGER]", help="A Java package or class.")] = None,
        level: Annotated[str | None, typer.Argument(metavar="[LEVEL]", help=f"One of {', '.join(LEVELS)}.")] = None,
        output: OutputOption = Output.table,
        timeout: TimeoutOption = 10,
        url: UrlOption = CONNECT_URL,
    ) -> None:
        """Set a logger's level on every worker until it restarts; without LEVEL show the loggers below LOGGER.

        DEBUG and TRACE of Kafka's and Debezium's configuration classes log settings: set them on what you look for."""
        if level is not None and level.upper() not in LEVELS:
            fail(f"There is no level {level}; there are {', '.join(LEVELS)}.", Exit.MISUSED)
        with context.connected(url, timeout) as (client, _):
            if logger is not None and level is not None:
                client.set_log_level(logger, level.upper())
                typer.echo(f"{logger} logs {level.upper()}")
                return
            found = client.get_log_levels()
        rows = [(name, each.level or "") for name, each in sorted(found.items()) if name.startswith(logger or "")]
        if output is Output.json:
            print_json(dict(rows))
        else:
            print_table(("LOGGER", "LEVEL"), rows)
