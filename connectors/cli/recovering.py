"""The command that brings back what a lost replication slot has left out."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from connectors.cli.context import (
    CONNECT_URL,
    Context,
    Exit,
    Output,
    OutputOption,
    UrlOption,
    example,
    fail,
    print_json,
)
from connectors.database import DatabaseUnreachable
from connectors.hold import AlreadyHeld
from connectors.recover.log import LogDamaged
from connectors.recover.run import Findings, Options, Recovery
from connectors.recover.topic import TopicUnreadable
from connectors.sessions import open_session

ROLE = "chat_recovery"
BY_KEY = {"enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off"}
"""Every query looks up keys; a big log must not be read whole because of what statistics say."""
SHOWN = 10
SHORT_TIME = "%Y-%m-%dT%H:%M:%S%z"


def add_to(cli: typer.Typer, context: Context) -> None:
    """Adds `recover`."""

    @cli.command("recover", epilog=example("recover --since 2026-11-26T20:00:00+00:00 --apply"))
    def recover_command(
        apply: Annotated[
            bool, typer.Option("--apply", help="Do it. Without this, only say what would be done.")
        ] = False,
        since: Annotated[
            datetime | None,
            typer.Option(
                "--since",
                formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", SHORT_TIME],
                help="When the slot was well for the last time, UTC unless it says otherwise; the whole topic is read"
                " when this is left out.",
            ),
        ] = None,
        rate: Annotated[float, typer.Option("--rate", min=1, help="The most entries to bring back per second.")] = 2000,
        keep_writes: Annotated[
            bool, typer.Option("--keep-writes", help="Let the API take writes meanwhile: new events may come first.")
        ] = False,
        timeout: Annotated[float, typer.Option("--timeout", min=1, help="Seconds for a connector to start.")] = 60,
        bootstrap: Annotated[
            str, typer.Option("--kafka", envvar="CHAT4ALL_KAFKA_BOOTSTRAP", help="Kafka's bootstrap servers.")
        ] = "127.0.0.1:9092",
        output: OutputOption = Output.table,
        url: UrlOption = CONNECT_URL,
    ) -> None:
        """Find the log entries that were never streamed, and bring exactly those back.

        With --apply: a replication slot that is lost or missing is made anew and its connector begins there; what Kafka
        does not hold is put through the outbox again, under the same ids and in order, and seen to arrive. Until that
        has ended the API takes no writes. It may be interrupted and run again. Logs in to PostgreSQL as chat_recovery
        (CHAT4ALL_DATABASE_HOST, _PORT, _NAME, _PASSWORD)."""
        options = Options(_in_utc(since), rate, holds_writes=not keep_writes, wait_seconds=timeout)
        try:
            with (
                context.connected(url, timeout) as (client, _),
                open_session(context.environ, user=ROLE, **BY_KEY) as session,
            ):
                recovery = Recovery(session, client, bootstrap, options, lambda line: typer.echo(line, err=True))
                findings = recovery.carry_out() if apply else recovery.look()
        except (DatabaseUnreachable, TopicUnreadable, AlreadyHeld, LogDamaged) as error:
            fail(str(error))
        if output is Output.json:
            print_json(_as_json(findings, is_applied=apply))
        else:
            _print(findings, is_applied=apply)
        if not apply and (findings.missing or findings.unadopted):
            raise typer.Exit(Exit.DIFFERS)


def _in_utc(moment: datetime | None) -> datetime | None:
    return moment if moment is None or moment.tzinfo else moment.replace(tzinfo=UTC)


def _print(findings: Findings, *, is_applied: bool) -> None:
    for state, why in findings.unadopted:
        typer.echo(f"slot {state.outbox.slot} {why}: it would be made anew, and {state.outbox.connector} begin there")
    for stretch in findings.missing[:SHOWN] if not is_applied else ():
        typer.echo(f"  {stretch.conversation_id} seq {stretch.first_seq} to {stretch.last_seq}")
    if len(findings.missing) > SHOWN and not is_applied:
        typer.echo(f"  and {len(findings.missing) - SHOWN} stretches more")
    told = findings.told
    kept = "the topic's beginning" if told.since is None else f"{told.since:%Y-%m-%d %H:%M:%S} UTC"
    typer.echo(f"read {told.records} records; what was written since {kept} was compared with them")
    if told.unreadable:
        typer.echo(f"{told.unreadable} records told no conversation and seq, and were passed over")
    what = f"{findings.entries} entries of {findings.conversations} conversations"
    if is_applied:
        typer.echo(f"brought back {what}; all of them have arrived" if findings.missing else "nothing is missing")
    elif findings.missing or findings.unadopted:
        typer.echo(f"{what} were never streamed; --apply brings them back")
    else:
        typer.echo("nothing is missing")


def _as_json(findings: Findings, *, is_applied: bool) -> dict[str, Any]:
    return {
        "applied": is_applied,
        "entries": findings.entries,
        "conversations": findings.conversations,
        "missing": [stretch._asdict() for stretch in findings.missing],
        "slots": [{"slot": state.outbox.slot, "reason": why} for state, why in findings.unadopted],
        "records_read": findings.told.records,
        "records_unreadable": findings.told.unreadable,
        "since": findings.told.since.isoformat() if findings.told.since else None,
    }
