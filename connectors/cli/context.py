"""What every command shares: its options, a client whose errors become sentences, output for people and programs."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Annotated, Any, NoReturn

import httpx
import typer
from typer.core import TyperGroup

from connectors.connect import ConnectClient, ConnectError, Deadline
from connectors.database import Database, find_address
from connectors.model import redact


class Exit(IntEnum):
    """What a command's exit code says."""

    DONE = 0
    FAILED = 1
    DIFFERS = 2
    MISUSED = 64
    """EX_USAGE of sysexits.h: apart from what scripts tell differences by."""


EXIT_CODES = (
    "Exit codes: 0 done, and all is well; 1 Kafka Connect is unreachable or refuses, or something is not well;"
    " 2 Connect holds something else than what is declared (drift); 64 the command line or a file is"
    " wrong."
)

CONNECT_URL = "http://127.0.0.1:8083"


class Output(StrEnum):
    """How a command prints: for people or for programs."""

    table = "table"
    json = "json"


UrlOption = Annotated[
    str,
    typer.Option(
        "--url",
        envvar="CHAT4ALL_CONNECT_URL",
        help="Kafka Connect's REST address, without a path; of several workers separated by commas.",
    ),
]
TimeoutOption = Annotated[float, typer.Option("--timeout", min=1, help="Seconds after which to give up.")]
OutputOption = Annotated[Output, typer.Option("--output", "-o", help="For people or for programs.")]


class Group(TyperGroup):
    """Commands whose misuse has an exit code of its own (typer's is 2, which here means a difference)."""

    def make_context(self, *arguments: Any, **named: Any) -> Any:
        """As the base class has it."""
        with _misuse():
            return super().make_context(*arguments, **named)

    def invoke(self, ctx: Any) -> Any:
        """As the base class has it."""
        with _misuse():
            return super().invoke(ctx)


@contextmanager
def _misuse() -> Iterator[None]:
    try:
        yield
    except typer.TyperException as error:
        if error.exit_code == Exit.DIFFERS:
            error.exit_code = Exit.MISUSED
        raise


def make_group(help_text: str, arguments: str) -> typer.Typer:
    """A group of commands; `add_to` of each module adds to one. `arguments` are its example."""
    return typer.Typer(
        cls=Group,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        epilog=example(arguments),
        help=help_text,
    )


def example(arguments: str) -> str:
    """A command's epilog: how it is called, and what its exit codes mean."""
    return f"Example: chat4all-connectors {arguments}. {EXIT_CODES}"


@dataclass(frozen=True)
class Context:
    """What commands are made with. `make_http` makes the client for a base URL; `environ` is where addresses and
    passwords of other servers are read."""

    make_http: Callable[[str], httpx.Client] = lambda url: httpx.Client(base_url=url, trust_env=False)
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)

    @contextmanager
    def connected(self, url: str, timeout: float) -> Iterator[tuple[ConnectClient, Deadline]]:
        """A client; what goes wrong with it becomes a sentence without secrets, and Exit.FAILED."""
        deadline = Deadline(timeout, clock=self.clock, sleep=self.sleep)
        with ExitStack() as stack:
            workers = self.open_workers(url, stack)
            try:
                yield ConnectClient(workers, deadline), deadline
            except ConnectError as error:
                fail(redact(str(error)))

    @contextmanager
    def database(self) -> Iterator[Database | None]:
        """PostgreSQL where the environment says that it is, for one command; None if it does not say. Raises
        DatabaseUnreachable."""
        address = find_address(self.environ)
        if address is None:
            yield None
            return
        with closing(Database(address)) as database:
            yield database

    def open_workers(self, urls: str, stack: ExitStack) -> list[httpx.Client]:
        """A client per worker, closed with the stack. They log in if CHAT4ALL_CONNECT_USER is set."""
        workers = [stack.enter_context(self.make_http(each)) for each in checked_urls(urls)]
        user = self.environ.get("CHAT4ALL_CONNECT_USER")
        if user:
            for http in workers:
                http.auth = httpx.BasicAuth(user, self.environ.get("CHAT4ALL_CONNECT_PASSWORD", ""))
        return workers


def checked_urls(urls: str) -> list[str]:
    """The addresses, or Exit.MISUSED with a sentence that does not repeat them: they may hold a password."""
    found = [url.strip() for url in urls.split(",")]
    for url in found:
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL:
            parsed = httpx.URL()
        if parsed.scheme not in ("http", "https") or not parsed.host or parsed.userinfo or parsed.path != "/":
            fail("--url must be an http or https address without a user, a password or a path in it.", Exit.MISUSED)
    return found


def fail(sentence: str, code: Exit = Exit.FAILED) -> NoReturn:
    """Ends the command with a sentence on standard error."""
    typer.echo(f"error: {sentence}", err=True)
    raise typer.Exit(code)


def print_json(document: Any) -> None:
    """A document for programs."""
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Rows for people, in columns as wide as they need."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    for line in lines:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
