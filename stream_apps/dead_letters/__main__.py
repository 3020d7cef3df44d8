"""`python -m stream_apps.dead_letters`: lists, shows, redrives and drops dead letters."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, NoReturn, TypeVar

import typer
from aiokafka.errors import KafkaError

from stream_apps.dead_letters import SUFFIX
from stream_apps.dead_letters.desk import (
    Address,
    Desk,
    Letter,
    NoOrigin,
    ReadingStalled,
    UnknownLetter,
    dead_letter_topics,
    original_headers,
)
from stream_apps.settings import StreamSettings

EXIT_CODES = (
    "Exit codes: 0 done (list: nothing is left to do); 1 list: there are unsettled dead letters, otherwise: one is"
    " unknown or was settled; 2 the command line is wrong; 3 Kafka does not answer."
)

cli = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    epilog=EXIT_CODES,
    help="Dead letters: records that could never be applied. Kafka's address comes from CHAT4ALL_KAFKA_BOOTSTRAP.",
)

Addresses = Annotated[
    list[str] | None, typer.Argument(metavar="ADDRESS...", help="As `list` prints it: TOPIC:PARTITION:OFFSET.")
]
Topic = Annotated[str | None, typer.Option(help="Of this topic only, with or without .dead-letter.")]
All = Annotated[bool, typer.Option("--all", help="All that are unsettled (with --topic: of that topic).")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

T = TypeVar("T")


@cli.command("list", epilog=f"Example: python -m stream_apps.dead_letters list --topic receipt.events. {EXIT_CODES}")
def list_command(
    topic: Topic = None,
    settled: Annotated[bool, typer.Option("--settled", help="Also those that were redriven or dropped.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
) -> None:
    """List the unsettled dead letters, oldest first, without their contents."""
    letters = _ask(lambda desk: desk.read(_topics(topic)))
    waiting = [letter for letter in letters if letter.outcome is None]
    for letter in letters if settled else waiting:
        typer.echo(json.dumps(letter.describe()) if as_json else _line(letter))
    if not as_json:
        typer.echo(f"{len(waiting)} unsettled dead letters, {len(letters) - len(waiting)} settled ones.", err=True)
    raise typer.Exit(1 if waiting else 0)


@cli.command(epilog=f"Example: python -m stream_apps.dead_letters show conversation.events:0:17. {EXIT_CODES}")
def show(addresses: Addresses = None) -> None:
    """Show dead letters whole: key, headers and value, which may be what a person wrote."""
    for letter in _ask(lambda desk: desk.find(_parsed(addresses))):
        headers = {name: None if value is None else value.decode("utf-8", "replace") for name, value in letter.headers}
        value = None if letter.value is None else letter.value.decode("utf-8", "replace")
        typer.echo(json.dumps({**letter.describe(), "headers": headers, "value": value}, indent=2, ensure_ascii=False))


@cli.command(epilog=f"Example: python -m stream_apps.dead_letters redrive --all --topic receipt.events. {EXIT_CODES}")
def redrive(addresses: Addresses = None, everything: All = False, topic: Topic = None, yes: Yes = False) -> None:
    """Send dead letters to their topic again, as they were. What cannot be applied even now becomes one again."""

    async def send(desk: Desk, letter: Letter) -> str:
        return f"is at {await desk.redrive(letter)} again ({len(original_headers(letter))} headers)"

    _settle(addresses, topic, everything=everything, yes=yes, verb="redrive", settle=send)


@cli.command(epilog=f"Example: python -m stream_apps.dead_letters drop conversation.events:0:17. {EXIT_CODES}")
def drop(addresses: Addresses = None, everything: All = False, topic: Topic = None, yes: Yes = False) -> None:
    """Settle dead letters without doing anything about them: they are listed no longer."""

    async def forget(desk: Desk, letter: Letter) -> str:
        await desk.drop(letter)
        return "is dropped"

    _settle(addresses, topic, everything=everything, yes=yes, verb="drop", settle=forget)


def _settle(
    addresses: list[str] | None,
    topic: str | None,
    *,
    everything: bool,
    yes: bool,
    verb: str,
    settle: Callable[[Desk, Letter], Awaitable[str]],
) -> None:
    if bool(addresses) == everything:
        raise typer.BadParameter(f"say which dead letters to {verb}: ADDRESS..., or --all")

    async def choose(desk: Desk) -> list[Letter]:
        if everything:
            return [letter for letter in await desk.read(_topics(topic)) if letter.outcome is None]
        return await desk.find(_parsed(addresses))

    letters = _ask(choose)
    settled = [letter for letter in letters if letter.outcome is not None]
    if settled:
        _fail(f"{settled[0].address} was {settled[0].outcome} already; nothing was done.", code=1)
    if letters and not yes:
        for letter in letters:
            typer.echo(_line(letter))
        typer.confirm(f"{verb.capitalize()} {len(letters)} dead letters?", abort=True)

    async def settle_all(desk: Desk) -> None:
        for letter in letters:
            typer.echo(f"{letter.address} {await settle(desk, letter)}")

    _ask(settle_all)


def _ask(question: Callable[[Desk], Awaitable[T]]) -> T:
    async def ask() -> T:
        async with Desk(StreamSettings().kafka_bootstrap) as desk:
            return await question(desk)

    logging.basicConfig(level=logging.CRITICAL)
    try:
        return asyncio.run(ask())
    except (UnknownLetter, NoOrigin) as error:
        _fail(str(error), code=1)
    except (KafkaError, ReadingStalled) as error:
        _fail(f"Kafka does not answer: {type(error).__name__}: {error}", code=3)


def _topics(topic: str | None) -> list[str]:
    known = dead_letter_topics()
    if topic is None:
        return known
    name = topic if topic.endswith(SUFFIX) else topic + SUFFIX
    if name not in known:
        raise typer.BadParameter(f"there is no topic {name}; there are {', '.join(known)}")
    return [name]


def _parsed(addresses: list[str] | None) -> list[Address]:
    if not addresses:
        raise typer.BadParameter("name at least one dead letter, as `list` prints it")
    parsed: list[Address] = []
    for text in addresses:
        try:
            address = Address.parse(text)
        except ValueError as error:
            raise typer.BadParameter(f"{text!r} is no address; write it as `list` prints it: TOPIC:0:17") from error
        _topics(address.topic)
        parsed.append(address)
    return parsed


def _line(letter: Letter) -> str:
    when = datetime.fromtimestamp(letter.timestamp / 1000, UTC).isoformat(timespec="seconds")
    told = letter.describe()
    outcome = f" [{letter.outcome}]" if letter.outcome else ""
    event = f"{told['event_type'] or '?'} seq {told['seq'] or '?'} of {told['key']}"
    return f"{letter.address} {when} {event}, {told['bytes']} bytes, was {letter.origin}: {told['reason']}{outcome}"


def _fail(sentence: str, *, code: int) -> NoReturn:
    typer.echo(f"error: {sentence}", err=True)
    raise typer.Exit(code)


def main() -> None:
    """The command."""
    cli(prog_name="python -m stream_apps.dead_letters")


if __name__ == "__main__":
    main()
