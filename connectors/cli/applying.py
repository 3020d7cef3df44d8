"""Commands that compare what is declared with what Connect holds, and make them equal."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Annotated, Any

import typer

from connectors.apply import carry_out, make_plan, read_held, validate, wait_until_settled
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
from connectors.declared import CONFIGS, Declaration, read_declaration
from connectors.documents import UnusableFile
from connectors.model import ConnectorStatus, masked, redact
from connectors.reconcile import Create, Held, Plan, Unchanged, Undeclared, Update, name_of
from connectors.unknown_settings import unknown_settings

Paths = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="PATH",
        help="Connector files, or folders of them; connectors/configs when left out. A folder is the whole truth: what"
        " Connect holds besides is undeclared.",
        show_default=False,
    ),
]
EnvironmentOption = Annotated[
    str | None,
    typer.Option(
        "--environment", "-e", envvar="CHAT4ALL_ENVIRONMENT", help="Lay overlays/<this>.yaml over the files, by key."
    ),
]


def add_to(cli: typer.Typer, context: Context) -> None:
    """Adds `plan`, `diff`, `apply`, `drift` and `validate`."""
    _add_reading(cli, context)
    _add_apply(cli, context)


def _add_reading(cli: typer.Typer, context: Context) -> None:
    @cli.command("plan", epilog=example("plan --environment catch-up"))
    def plan_command(
        paths: Paths = None,
        environment: EnvironmentOption = None,
        output: OutputOption = Output.table,
        timeout: TimeoutOption = 30,
        url: UrlOption = CONNECT_URL,
    ) -> None:
        """Show what apply would change, key by key, secrets masked. Changes nothing."""
        declaration = declared(paths, environment)
        with context.connected(url, timeout) as (client, _):
            hints = _hints(declaration, validate(client, declaration.connectors))
            plans = make_plan(client, declaration)
        _show_plans(plans, output, _PLANNED)
        _show_hints(hints, output)

    @cli.command("diff", epilog=example("diff connectors/configs/outbox.json"))
    def diff_command(
        paths: Paths = None,
        environment: EnvironmentOption = None,
        timeout: TimeoutOption = 30,
        url: UrlOption = CONNECT_URL,
    ) -> None:
        """Show the settings that Connect holds and the declared ones as a unified diff, secrets masked."""
        declaration = declared(paths, environment)
        with context.connected(url, timeout) as (client, _):
            held = read_held(client)
        for connector in declaration.connectors:
            actual = held.get(connector.name)
            before = _lines(actual) if actual else []
            after = _lines(Held(connector.config, connector.state))
            for line in difflib.unified_diff(
                before, after, f"{connector.name} (Connect)", f"{connector.name} (declared)", lineterm=""
            ):
                typer.echo(line)

    @cli.command("drift", epilog=example("drift --output json"))
    def drift_command(
        paths: Paths = None,
        environment: EnvironmentOption = None,
        output: OutputOption = Output.table,
        timeout: TimeoutOption = 30,
        url: UrlOption = CONNECT_URL,
    ) -> None:
        """Say whether Connect holds something else than what is declared, by exit code 2. Changes nothing."""
        declaration = declared(paths, environment)
        with context.connected(url, timeout) as (client, _):
            plans = make_plan(client, declaration)
        _show_plans(plans, output, _FOUND)
        if not all(isinstance(plan, Unchanged) for plan in plans):
            raise typer.Exit(Exit.DIFFERS)

    @cli.command("validate", epilog=example("validate connectors/configs/outbox.json"))
    def validate_command(
        paths: Paths = None,
        environment: EnvironmentOption = None,
        offline: Annotated[bool, typer.Option("--offline", help="Look at the files alone; ask nobody.")] = False,
        timeout: TimeoutOption = 60,
        url: UrlOption = CONNECT_URL,
    ) -> None:
        """Look for mistakes: in the files, then by Connect, which tries the connector's login. Changes nothing."""
        declaration = declared(paths, environment)
        hints: list[str] = []
        if not offline:
            with context.connected(url, timeout) as (client, _):
                hints = _hints(declaration, validate(client, declaration.connectors))
        _show_hints(hints, Output.table)
        for connector in declaration.connectors:
            typer.echo(f"{connector.name} is valid")


def _add_apply(cli: typer.Typer, context: Context) -> None:
    @cli.command("apply", epilog=example("apply connectors/configs/outbox.json"))
    def apply_command(
        paths: Paths = None,
        environment: EnvironmentOption = None,
        wait: Annotated[
            bool, typer.Option("--wait/--no-wait", help="Wait until connectors and tasks do what they are meant to.")
        ] = True,
        prune: Annotated[
            bool, typer.Option("--prune", help="Delete what Connect holds undeclared; asks first.")
        ] = False,
        yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
        timeout: TimeoutOption = 60,
        url: UrlOption = CONNECT_URL,
    ) -> None:
        """Make Kafka Connect hold exactly what is declared, and wait until it runs.

        May be run any number of times, and beside another; says "unchanged" when there is nothing to do. What FAILED
        under unchanged settings is restarted once. Nothing is written unless Connect finds everything valid."""
        declaration = declared(paths, environment)
        if prune and not declaration.is_whole:
            fail("--prune needs a folder: files do not say what else there may be.", Exit.MISUSED)
        with context.connected(url, timeout) as (client, _):
            validate(client, declaration.connectors)
            plans = make_plan(client, declaration)
        _show_plans(plans, Output.table, _DOING | ({"undeclared": "deleting"} if prune else {}))
        undeclared = [plan.name for plan in plans if isinstance(plan, Undeclared)]
        if prune and undeclared and not yes:
            typer.confirm(f"Delete {', '.join(undeclared)}? Nothing is streamed by them from then on.", abort=True)
        with context.connected(url, timeout) as (client, deadline):
            carry_out(client, plans, prune=prune)
            if wait:
                settled = wait_until_settled(client, plans, deadline, on_restart=_show_restart)
                for status in settled:
                    typer.echo(f"{status.name} {_VERBS[status.connector.state]}: {status.summary()}")


_VERBS = {"PAUSED": "is paused", "STOPPED": "is stopped", "RUNNING": "runs"}
_PLANNED = {"create": "create", "update": "update {}:", "unchanged": "unchanged", "undeclared": "undeclared"}
_DOING = {"create": "creating", "update": "updating {}:", "unchanged": "unchanged", "undeclared": "undeclared"}
_FOUND = {
    "create": "missing",
    "update": "differs {} (Connect -> declared):",
    "unchanged": "unchanged",
    "undeclared": "undeclared",
}
"""What is said of each kind of plan before it is carried out, while it is, and when only the difference matters."""


def declared(paths: Sequence[Path] | None, environment: str | None) -> Declaration:
    """What the command line names, or Exit.MISUSED with a sentence."""
    try:
        return read_declaration(paths or [CONFIGS], environment)
    except UnusableFile as error:
        fail(str(error), Exit.MISUSED)


def _hints(declaration: Declaration, known: Mapping[str, Set[str]]) -> list[str]:
    """Settings that nobody knows: Connect passes over them in silence."""
    return [
        f"{connector.name}: {sentence}"
        for connector in declaration.connectors
        for sentence in unknown_settings(connector.config, known[connector.name])
    ]


def _show_plans(plans: Sequence[Plan], output: Output, words: Mapping[str, str]) -> None:
    if output is Output.json:
        print_json([_as_json(plan) for plan in plans])
        return
    for plan in plans:
        word = words[_kind(plan)]
        typer.echo(word.format(name_of(plan)) if "{}" in word else f"{word} {name_of(plan)}")
        if isinstance(plan, Update):
            if plan.state_before:
                typer.echo(f"  ~ state: {plan.state_before} -> {plan.connector.state}")
            for change in plan.changes:
                typer.echo(f"  {change.describe()}")


def _show_hints(hints: Sequence[str], output: Output) -> None:
    for hint in hints:
        typer.echo(f"note: {hint}", err=output is Output.json)


def _kind(plan: Plan) -> str:
    return type(plan).__name__.lower()


def _as_json(plan: Plan) -> dict[str, Any]:
    document: dict[str, Any] = {"name": name_of(plan), "plan": _kind(plan)}
    if isinstance(plan, Create):
        document |= {"state": plan.connector.state, "config": masked(plan.connector.config)}
    if isinstance(plan, Update):
        document["changes"] = [change.as_json() for change in plan.changes]
        if plan.state_before:
            document["state"] = {"before": plan.state_before, "after": plan.connector.state}
    return document


def _lines(held: Held) -> list[str]:
    return [f"state = {held.state}", *(f"{key} = {value}" for key, value in masked(held.config).items())]


def _show_restart(status: ConnectorStatus) -> None:
    typer.echo(f"restarting what failed in {status.name}:")
    for failure in status.failures():
        typer.echo(f"  {redact(failure)}")
