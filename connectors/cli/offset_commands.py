"""Commands about how far a connector has read. They change offsets only of a stopped connector, and say first what is
streamed again or never."""

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
from connectors.cli.looking import NameArgument, read_slot
from connectors.connect import ConnectClient
from connectors.offsets import Effect, judge_change, judge_reset, moved_to, position_of
from connectors.slots import format_lsn, parse_lsn

LossOption = Annotated[bool, typer.Option("--accept-loss", help="Go on even if something is never streamed.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def add_to(cli: typer.Typer, context: Context) -> None:
    """Adds the group `offsets`: `show`, `set`, `reset`."""
    group = make_group(
        "Shows and changes how far connectors have read. Changes only what is stopped.", "offsets show chat4all-outbox"
    )
    cli.add_typer(group, name="offsets")
    _add_set(group, context)

    @group.command("show", epilog=example("offsets show chat4all-outbox"))
    def show_command(
        name: NameArgument,
        output: OutputOption = Output.table,
        timeout: TimeoutOption = 10,
        url: UrlOption = CONNECT_URL,
    ) -> None:
        """Show up to where a connector has read, as Connect has committed it."""
        with context.connected(url, timeout) as (client, _):
            offsets = client.get_offsets(name)
        if output is Output.json:
            print_json([offset.model_dump() for offset in offsets])
            return
        positions = [(offset, position_of(offset)) for offset in offsets]
        rows = [
            (str(offset.partition), str(offset.offset) if position is None else format_lsn(position))
            for offset, position in positions
        ]
        print_table(("PARTITION", "READ UP TO"), rows)

    @group.command("reset", epilog=example("offsets reset chat4all-outbox"))
    def reset_command(
        name: NameArgument,
        yes: YesOption = False,
        accept_loss: LossOption = False,
        timeout: TimeoutOption = 30,
        url: UrlOption = CONNECT_URL,
    ) -> None:
        """Forget the offsets of a stopped connector: it begins anew where its replication slot is."""
        with context.connected(url, timeout) as (client, _):
            config = client.get_config(name)
            current = client.get_offsets(name)
            _require_stopped(client, name)
            slot, _lsn = read_slot(context, config)
            _confirm(judge_reset(current, slot), yes=yes, accept_loss=accept_loss)
            client.reset_offsets(name)
        typer.echo(f"{name} has no offsets; `resume {name}` has it go on.")


def _add_set(group: typer.Typer, context: Context) -> None:
    @group.command("set", epilog=example("offsets set chat4all-outbox 0/1C55118"))
    def set_command(
        name: NameArgument,
        position: Annotated[
            str, typer.Argument(metavar="POSITION", help="In the write-ahead log: 0/1C55118.", show_default=False)
        ],
        yes: YesOption = False,
        accept_loss: LossOption = False,
        timeout: TimeoutOption = 30,
        url: UrlOption = CONNECT_URL,
    ) -> None:
        """Have a stopped connector of Debezium's for PostgreSQL go on from another position."""
        try:
            lsn = parse_lsn(position)
        except ValueError as error:
            fail(str(error), Exit.MISUSED)
        with context.connected(url, timeout) as (client, _):
            config = client.get_config(name)
            current = client.get_offsets(name)
            _require_stopped(client, name)
            if not current:
                fail(f"{name} has no offset to move: it begins where its replication slot is.")
            target = [moved_to(offset, lsn) for offset in current]
            slot, current_lsn = read_slot(context, config)
            effect = judge_change(current, target, slot, current_lsn=current_lsn)
            _confirm(effect, yes=yes, accept_loss=accept_loss)
            client.set_offsets(name, target)
        typer.echo(f"{name} goes on from {format_lsn(lsn)}; `resume {name}` has it go on.")


def _require_stopped(client: ConnectClient, name: str) -> None:
    status = client.get_status(name)
    if not status.is_told("STOPPED"):
        fail(f"{name} is {status.connector.state}: `stop {name}` first, so that it does not write its own offsets.")


def _confirm(effect: Effect, *, yes: bool, accept_loss: bool) -> None:
    if effect.refusal is not None:
        fail(effect.refusal)
    typer.echo(effect.sentence)
    if effect.loses and not accept_loss:
        fail("nothing was changed: --accept-loss does it all the same.")
    if not yes:
        typer.confirm("Go on?", abort=True)
