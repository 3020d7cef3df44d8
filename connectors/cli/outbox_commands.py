"""The command that changes between how many outboxes the conversations are shared."""

from __future__ import annotations

from typing import Annotated

import typer

from connectors.apply import carry_out, make_plan, validate, wait_until_settled
from connectors.cli.applying import EnvironmentOption, Paths, declared
from connectors.cli.context import CONNECT_URL, Context, Exit, TimeoutOption, UrlOption, example, fail
from connectors.database import DatabaseUnreachable
from connectors.hold import AlreadyHeld
from connectors.outboxes.change import change, read_present, remove_surplus
from connectors.sessions import open_session
from schemas.outboxes import Outbox, find_outbox

ROLE = "chat_owner"
LOCK_MILLISECONDS = "10000"


def add_to(cli: typer.Typer, context: Context) -> None:
    """Adds `outboxes`."""

    @cli.command("outboxes", epilog=example("outboxes connectors/configs --apply"))
    def outboxes_command(
        paths: Paths = None,
        environment: EnvironmentOption = None,
        apply: Annotated[
            bool, typer.Option("--apply", help="Do it. Without this, only say what would be done.")
        ] = False,
        timeout: TimeoutOption = 60,
        url: UrlOption = CONNECT_URL,
    ) -> None:
        """Share the conversations between as many outboxes as are declared ("outboxes" in the connector's file).

        Each has a publication, a replication slot and a connector. The API takes no writes for some seconds, until what
        was written has reached Kafka: so each conversation stays in order. Logs in to PostgreSQL as chat_owner
        (CHAT4ALL_DATABASE_HOST, _PORT, _NAME, _USER, _PASSWORD)."""
        declaration = declared(paths, environment)
        total = sum(find_outbox(each.config.get("slot.name", "")) is not None for each in declaration.connectors)
        if total == 0:
            fail(f"Nobody declares the connector {Outbox(0).connector}.", Exit.MISUSED)
        try:
            with (
                context.connected(url, timeout) as (client, deadline),
                open_session(context.environ, user=ROLE, lock_timeout=LOCK_MILLISECONDS) as session,
            ):
                present = len(read_present(session))
                if not apply:
                    typer.echo(f"there are {present} outboxes, and {total} are declared")
                    raise typer.Exit(Exit.DONE if present == total else Exit.DIFFERS)
                validate(client, declaration.connectors[:1])
                if present != total:
                    change(session, total, timeout, typer.echo)
                plans = make_plan(client, declaration)
                carry_out(client, plans, prune=False)
                wait_until_settled(client, plans, deadline, on_restart=lambda _: None)
                remove_surplus(session, client, total, deadline, typer.echo)
        except (DatabaseUnreachable, AlreadyHeld) as error:
            fail(str(error))
        typer.echo(f"{total} outboxes stream")
