"""`python -m ingest_api.audit`: verifies the audit log, and exports its signed head."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import psycopg
import typer

from ingest_api.audit.heads import Head, SignedHeads, append_line, sign_head
from ingest_api.audit.verifier import Report, verify_log
from ingest_api.settings import DatabaseSettings
from schemas.key_files import read_key_set

command = typer.Typer(
    help="The audit log. The database's login comes from CHAT4ALL_DATABASE_HOST, _PORT, _NAME, _USER and _PASSWORD.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@command.command()
def verify(
    heads: Annotated[
        Path | None, typer.Option(help="file of signed heads: finds a log that was cut off or made anew")
    ] = None,
    jwks: Annotated[
        list[Path] | None,
        typer.Option(help="JWK set that the heads were signed with (may be repeated)", envvar="CHAT4ALL_JWKS_FILE"),
    ] = None,
    first: Annotated[int, typer.Option("--from", min=1, help="position to start at")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="print the report as JSON")] = False,
) -> None:
    """Reads the whole log. Exit status 0: nothing is wrong; 1: something is, and where; 2: it could not be read."""
    signed = None
    if heads is not None:
        if not jwks:
            raise typer.BadParameter("--heads needs --jwks, the keys that they were signed with")
        keys = {str(key.kid): key for path in jwks for key in read_key_set(path)}
        signed = SignedHeads(heads.read_text().splitlines(), keys.get)
    with _connect() as connection:
        report = verify_log(connection, signed, first=first)
    _print_json(report) if as_json else _print(report, has_heads=heads is not None)
    raise typer.Exit(1 if report.faults else 0)


@command.command()
def export(
    heads: Annotated[Path, typer.Option(help="file to append to", envvar="CHAT4ALL_AUDIT_HEAD_FILE")],
    signing_keys: Annotated[Path, typer.Option(help="private JWK set", envvar="CHAT4ALL_SIGNING_KEY_FILE")],
) -> None:
    """Signs the newest entry's hash and appends it to a file; the API does the same at an interval."""
    key = read_key_set(signing_keys).keys[-1]
    with _connect() as connection:
        row = connection.execute("SELECT position, entry_hash FROM audit_head").fetchone()
    if row is None or not row[0]:
        raise typer.BadParameter("the audit log is empty")
    append_line(heads, sign_head(Head(*row), key, now=time.time()))
    print(f"position {row[0]}: {row[1].hex()}")


def _connect() -> psycopg.Connection[tuple[Any, ...]]:
    return psycopg.Connection.connect(**DatabaseSettings().connection_arguments())


def _print(report: Report, *, has_heads: bool) -> None:
    for fault in report.faults:
        print(f"{fault.position}: {fault.sentence}" if fault.position else fault.sentence)
    for kid in report.unknown_keys:
        print(f"Heads signed with the key {kid} were not checked: no --jwks holds it.", file=sys.stderr)
    checked = f", {report.heads} signed heads agree" if has_heads and not report.faults else ""
    verdict = f"{len(report.faults)} faults" if report.faults else f"nothing is wrong{checked}"
    print(f"{report.entries} entries up to position {report.position}: {verdict}.")
    if not has_heads and not report.faults:
        print("(Only signed heads show that the whole log was not made anew: --heads FILE.)")


def _print_json(report: Report) -> None:
    print(
        json.dumps(
            {
                "entries": report.entries,
                "position": report.position,
                "heads": report.heads,
                "unknown_keys": report.unknown_keys,
                "faults": [fault._asdict() for fault in report.faults],
            }
        )
    )


def main() -> None:
    """The command."""
    try:
        command(prog_name="python -m ingest_api.audit")
    except psycopg.Error as error:
        typer.echo(f"The audit log cannot be read: {error}", err=True)
        raise SystemExit(2) from error
    except (OSError, ValueError) as error:
        typer.echo(str(error), err=True)
        raise SystemExit(2) from error


if __name__ == "__main__":
    main()
