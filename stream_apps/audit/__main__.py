"""`python -m stream_apps.audit`: `run` is the program that looks all the time, `check` one pass on command."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer
import uvloop
from aiokafka.errors import KafkaError
from redis.exceptions import RedisError

from schemas.ids import is_uuid
from stream_apps.audit.app import Audit
from stream_apps.audit.checker import Fault, tally
from stream_apps.audit.full import FullPass, Report, Scope
from stream_apps.audit.settings import AuditSettings
from stream_apps.audit.tables import TableReader
from stream_apps.audit.topic import TopicReader
from stream_apps.clients import make_redis
from stream_apps.log_reader import LogUnavailable
from stream_apps.log_scanner import LogScanner
from stream_apps.rebuilding import Rebuilder

EXIT_CODES = (
    "Exit codes: 0 nothing is wrong (any more, with --repair); 1 something is; 2 the command line is wrong; 3 Postgres,"
    " Redis or Kafka does not answer."
)
MOST_LINES = 50

cli = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Compares Postgres, Kafka and the Redis tables. Settings are environment variables named CHAT4ALL_…",
)


@cli.command()
def run() -> None:
    """Look all the time at what was touched lately; heal lost tables; serve /metrics and /healthz. Ends at SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    uvloop.run(_run(AuditSettings()))


async def _run(settings: AuditSettings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await Audit(settings).run(stop)


@cli.command(epilog=f"Example: python -m stream_apps.audit check --full --json. {EXIT_CODES}")
def check(  # noqa: PLR0913, PLR0917 - its options
    full: Annotated[bool, typer.Option("--full", help="Every conversation, and the topic from its beginning.")] = False,
    since: Annotated[str | None, typer.Option(help="Those touched after this time [an hour ago].")] = None,
    conversation: Annotated[list[str] | None, typer.Option(help="This conversation; may be repeated.")] = None,
    kafka: Annotated[bool, typer.Option(help="Read the topic as well.")] = True,
    repair: Annotated[bool, typer.Option("--repair", help="Rebuild the tables that are wrong.")] = False,
    confirm_seconds: Annotated[
        float, typer.Option(min=0, help="A fault counts if it is there twice, so many seconds apart.")
    ] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Compare once, and say what is wrong. May be run while everything is in use."""
    if sum((full, since is not None, bool(conversation))) > 1:
        raise typer.BadParameter("--full, --since and --conversation exclude each other")
    for name in conversation or ():
        if not is_uuid(name):
            raise typer.BadParameter(f"{name!r} is no conversation's id; ids are UUIDs in lower case")
    logging.basicConfig(level=logging.ERROR)
    scope = Scope(tuple(conversation or ()), None if full or conversation else _time(since))
    work = _check(AuditSettings(), scope, kafka=kafka, repair=repair, confirm_seconds=confirm_seconds)
    try:
        report = uvloop.run(work)
    except (LogUnavailable, RedisError, KafkaError) as error:
        typer.echo(f"error: {type(error).__name__}: {error}. Nothing can be said.", err=True)
        raise typer.Exit(3) from error
    typer.echo(json.dumps(_as_json(report)) if as_json else _as_text(report, has_kafka=kafka))
    raise typer.Exit(1 if report.left else 0)


async def _check(settings: AuditSettings, scope: Scope, *, kafka: bool, repair: bool, confirm_seconds: float) -> Report:
    redis = make_redis(settings, timeout_seconds=30)
    login = settings.database_arguments() | {"application_name": "chat4all audit check"}
    topic = TopicReader(settings.kafka_bootstrap, is_patient=False) if kafka else None
    async with redis, LogScanner(login) as log:
        full_pass = FullPass(log, TableReader(redis), Rebuilder(log, redis), confirm_seconds=confirm_seconds)
        try:
            return await full_pass.run(scope, topic, repair=repair)
        finally:
            if topic is not None:
                await topic.close()


def _time(text: str | None) -> datetime:
    if text is None:
        return datetime.now(UTC) - timedelta(hours=1)
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"--since {text!r} is no time; write it as 2026-11-26T20:00:00Z") from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _as_json(report: Report) -> dict[str, Any]:
    return {**asdict(report), "found_by_kind": tally(report.faults), "left_by_kind": tally(report.left)}


def _as_text(report: Report, *, has_kafka: bool) -> str:
    lines = [_line(fault) for fault in report.faults[:MOST_LINES]]
    if len(report.faults) > MOST_LINES:
        lines.append(f"… and {len(report.faults) - MOST_LINES} more")
    read = f", {report.records} records ({report.redelivered} of them again)" if has_kafka else ""
    verdict = f"{len(report.faults)} faults" if report.faults else "nothing is wrong"
    if report.repaired:
        verdict += f", {report.repaired} conversations rebuilt, {len(report.left)} faults left"
    return "\n".join([*lines, f"{report.conversations} conversations, {report.entries} comparisons{read}: {verdict}."])


def _line(fault: Fault) -> str:
    return f"{fault.place} {fault.kind}: conversation {fault.conversation_id} seq {fault.seq}: {fault.detail}"


def main() -> None:
    """The command."""
    cli(prog_name="python -m stream_apps.audit")


if __name__ == "__main__":
    main()
