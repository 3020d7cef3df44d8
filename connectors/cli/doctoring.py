"""The command that looks for what is wrong."""

from __future__ import annotations

from pathlib import Path
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
    print_json,
)
from connectors.doctor.examine import Report, examine, look
from connectors.doctor.findings import Severity
from connectors.doctor.read_connect import read_worker_file
from connectors.documents import UnusableFile


def add_to(cli: typer.Typer, context: Context) -> None:
    """Adds `doctor`."""

    @cli.command("doctor", epilog=example("doctor --worker-file infra/connect/connect-distributed.properties"))
    def doctor_command(
        worker_file: Annotated[
            Path | None,
            typer.Option("--worker-file", envvar="CHAT4ALL_CONNECT_WORKER_FILE", help="The worker's properties file."),
        ] = None,
        is_strict: Annotated[
            bool, typer.Option("--strict", help="Warnings count as errors for the exit code.")
        ] = False,
        bootstrap: Annotated[
            str, typer.Option("--kafka", envvar="CHAT4ALL_KAFKA_BOOTSTRAP", help="Kafka's bootstrap servers.")
        ] = "127.0.0.1:9092",
        output: OutputOption = Output.table,
        timeout: TimeoutOption = 10,
        url: UrlOption = CONNECT_URL,
    ) -> None:
        """Look for what is wrong with PostgreSQL, Kafka Connect and Kafka, and say what to do about it.

        Reads and changes nothing. Exit code 2 when there is an error: events are lost or do not flow, or will at the
        next fault. Logs in to PostgreSQL as chat_monitor (CHAT4ALL_DATABASE_HOST, _PORT, _NAME, _PASSWORD)."""
        try:
            worker_settings = None if worker_file is None else read_worker_file(worker_file)
        except UnusableFile as problem:
            fail(str(problem), Exit.MISUSED)
        with context.connected(url, timeout) as (client, _):
            report = examine(look(context.environ, client, bootstrap, worker_settings))
        if output is Output.json:
            print_json([{"check": name, **_texts(problem)} for name, problem in report.findings])
        else:
            _print(report)
        worst = max((finding.problem.severity for finding in report.findings), default=Severity.NOTE)
        if worst >= (Severity.WARNING if is_strict else Severity.ERROR):
            raise typer.Exit(Exit.DIFFERS)


def _texts(problem: tuple[Severity, str, str]) -> dict[str, str]:
    severity, sentence, fix = problem
    return {"severity": severity.name.lower(), "sentence": sentence, "fix": fix}


def _print(report: Report) -> None:
    for name, problem in report.findings:
        typer.echo(f"{problem.severity.name:<8} {problem.sentence}  [{name}]")
        typer.echo(f"         to do: {problem.fix}")
    counts = ", ".join(f"{report.count(each)} {each.name.lower()}s" for each in reversed(Severity))
    typer.echo(f"{report.checks} checks: {counts}")
