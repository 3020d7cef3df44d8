"""`python -m stream_apps.backfill`: rebuilds Redis tables from Postgres, while everything runs."""

from __future__ import annotations

import json
import logging
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer
import uvloop

from schemas.ids import is_uuid
from stream_apps.backfill_run import AWAY, Backfill, Pace, Progress, Selection
from stream_apps.clients import make_redis
from stream_apps.log_scanner import LogScanner
from stream_apps.rebuilding import Rebuilder
from stream_apps.settings import StreamSettings

EXIT_CODES = (
    "Exit codes: 0 every conversation is as far as Postgres; 1 some could not be rebuilt (they are named); 2 the"
    " command line is wrong; 3 Postgres or Redis does not answer."
)
REPORT_SECONDS = 2.0
MOST_NAMES = 20

cli = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@cli.command(epilog=f"Example: python -m stream_apps.backfill --since 2026-11-26T20:00:00Z --rate 5000. {EXIT_CODES}")
def backfill(  # noqa: PLR0913, PLR0917 - its options
    conversation: Annotated[list[str] | None, typer.Option(help="This conversation; may be repeated.")] = None,
    since: Annotated[str | None, typer.Option(help="Those with entries after this time (ISO 8601).")] = None,
    until: Annotated[str | None, typer.Option(help="With --since: not after this time.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every conversation.")] = False,
    force: Annotated[bool, typer.Option(help="Rebuild also tables that are as far as Postgres.")] = False,
    rate: Annotated[float, typer.Option(min=0, help="Entries per second at the most; 0 is no limit.")] = 0,
    patience: Annotated[float, typer.Option(min=0, help="Seconds to wait for what does not answer.")] = 60,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Rebuild the Redis tables of conversations, and of their participants, from Postgres.

    Takes nothing away from readers meanwhile, and may be run any number of times and beside itself. Settings come from
    CHAT4ALL_REDIS_… and CHAT4ALL_DATABASE_…; progress goes to standard error."""
    if sum((bool(conversation), since is not None, everything)) != 1:
        raise typer.BadParameter("choose one of --conversation ID, --since TIME and --all")
    if until is not None and since is None:
        raise typer.BadParameter("--until goes with --since")
    for name in conversation or ():
        if not is_uuid(name):
            raise typer.BadParameter(f"{name!r} is no conversation's id; ids are UUIDs in lower case")
    selection = Selection(tuple(conversation or ()), _time(since, "--since"), _time(until, "--until"))
    logging.basicConfig(level=logging.ERROR)
    try:
        progress = uvloop.run(_run(StreamSettings(), selection, force=force, rate=rate, patience=patience))
    except AWAY as error:
        typer.echo(f"error: {error}. What was rebuilt stays; run the command again.", err=True)
        raise typer.Exit(3) from error
    left = [*progress.done.unknown, *progress.done.moved]
    if as_json:
        typer.echo(json.dumps({"conversations": progress.conversations, **asdict(progress.done)}))
    else:
        typer.echo(f"{progress.describe()}; {progress.done.users} users")
        _print_left("not in Postgres", progress.done.unknown)
        _print_left("got new entries too quickly to be replaced", progress.done.moved)
    raise typer.Exit(1 if left else 0)


async def _run(
    settings: StreamSettings, selection: Selection, *, force: bool, rate: float, patience: float
) -> Progress:
    reported_at = time.monotonic()

    def report(progress: Progress) -> None:
        nonlocal reported_at
        if time.monotonic() - reported_at >= REPORT_SECONDS:
            reported_at = time.monotonic()
            print(progress.describe(), file=sys.stderr, flush=True)

    redis = make_redis(settings, timeout_seconds=30)
    login = settings.database_arguments() | {"application_name": "chat4all backfill"}
    async with redis, LogScanner(login) as log:
        run = Backfill(log, Rebuilder(log, redis), pace=Pace(rate), patience_seconds=patience, report=report)
        return await run.run(selection, force=force)


def _time(text: str | None, option: str) -> datetime | None:
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"{option} {text!r} is no time; write it as 2026-11-26T20:00:00Z") from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _print_left(what: str, ids: list[str]) -> None:
    if ids:
        more = f" and {len(ids) - MOST_NAMES} more" if len(ids) > MOST_NAMES else ""
        typer.echo(f"{len(ids)} conversations {what}: {', '.join(ids[:MOST_NAMES])}{more}", err=True)


def main() -> None:
    """The command."""
    cli(prog_name="python -m stream_apps.backfill")


if __name__ == "__main__":
    main()
