"""`python -m stream_apps.canary`: `run` is the program, `conversations` tells which ones are the canary's."""

from __future__ import annotations

import asyncio
import logging
import signal
from typing import Annotated

import typer
import uvloop
from pydantic import ValidationError

from schemas.ids import is_uuid
from stream_apps.canary.app import PARTITIONS, Canary
from stream_apps.canary.model import choose_conversations
from stream_apps.canary.settings import CanarySettings

cli = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Writes to every partition all the time, and notices what does not come back. Settings are environment"
    " variables named CHAT4ALL_CANARY_…",
)


@cli.command(
    epilog="Example: CHAT4ALL_CANARY_PASSWORD=… python -m stream_apps.canary run. Exit codes: 0, 2 bad settings."
)
def run() -> None:
    """Write and listen; serve /metrics and /healthz. Ends at SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for each request
    try:
        settings = CanarySettings()
    except ValidationError as error:
        first = error.errors()[0]
        typer.echo(f"error: CHAT4ALL_{str(first['loc'][0]).upper()}: {first['msg']}", err=True)
        raise typer.Exit(2) from error
    uvloop.run(_run(settings))


async def _run(settings: CanarySettings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await Canary(settings).run(stop)


@cli.command(epilog="Example: python -m stream_apps.canary conversations 018f3c1e-7b1a-7c3e-9d2f-5a6b7c8d9e0f")
def conversations(
    user_id: Annotated[str, typer.Argument(help="The canary's user id (users.user_id of its username).")],
) -> None:
    """Print the partitions and the ids of the canary's conversations: whoever prunes the log may begin there."""
    if not is_uuid(user_id):
        raise typer.BadParameter(f"{user_id!r} is no user's id; ids are UUIDs in lower case")
    for partition, conversation_id in enumerate(choose_conversations(user_id, PARTITIONS)):
        typer.echo(f"{partition} {conversation_id}")


def main() -> None:
    """The command."""
    cli(prog_name="python -m stream_apps.canary")


if __name__ == "__main__":
    main()
