"""Commands that show what is there and change nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

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
    print_table,
)
from connectors.connect import ConnectClient, UnknownConnector
from connectors.database import DatabaseUnreachable
from connectors.model import Config, ConnectorStatus, Overview, Verdict, masked, redact
from connectors.offsets import position_of
from connectors.slots import DatabaseFacts, Slot, format_bytes, format_lsn, heartbeat_id, slot_name

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The connector.", show_default=False)]

UNKNOWN = "unknown (CHAT4ALL_DATABASE_HOST is not set)"


def add_to(cli: typer.Typer, context: Context) -> None:
    """Adds `status`, `get`, `describe` and `plugins`."""
    _add_status(cli, context)
    _add_describing(cli, context)

    @cli.command("plugins", epilog=example("plugins --type source"))
    def plugins_command(
        kind: Annotated[
            str | None, typer.Option("--type", help="Only these: source, sink, converter, transformation, predicate…")
        ] = None,
        output: OutputOption = Output.table,
        timeout: TimeoutOption = 10,
        url: UrlOption = CONNECT_URL,
    ) -> None:
        """Show what Connect found in its plugin.path, with versions."""
        with context.connected(url, timeout) as (client, _):
            plugins = [plugin for plugin in client.get_plugins() if kind in (None, plugin.type)]
        if output is Output.json:
            print_json([plugin.model_dump(by_alias=True) for plugin in plugins])
        else:
            rows = [(plugin.type, plugin.plugin_class, plugin.version or "") for plugin in plugins]
            print_table(("TYPE", "CLASS", "VERSION"), rows)


def _add_status(cli: typer.Typer, context: Context) -> None:
    @cli.command("status", epilog=example("status --output json"))
    def status_command(
        name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One connector; all when left out.")] = None,
        output: OutputOption = Output.table,
        timeout: TimeoutOption = 10,
        url: UrlOption = CONNECT_URL,
    ) -> None:
        """Show connectors and their tasks, the causes of what FAILED, and how far their slots and heartbeats are.

        Slots and heartbeats are read from PostgreSQL, at CHAT4ALL_DATABASE_HOST (_PORT, _NAME, _USER, _PASSWORD)."""
        with context.connected(url, timeout) as (client, _):
            overviews = client.get_overviews() if name is None else {name: _overview(client, name)}
        facts, obstacle = _read_database(context)
        statuses = [each.status for each in overviews.values() if each.status is not None]
        if output is Output.json:
            print_json([_as_json(each, facts) for each in overviews.values() if each.status is not None])
        else:
            _print_table(statuses)
            for each in overviews.values():
                for line in _slot_lines(each.config(), facts, obstacle):
                    typer.echo(f"{each.info.config.get('name')}, {line}")
            for each in overviews.values():
                for failure in each.status.failures() if each.status else ():
                    typer.echo(f"{each.status.name if each.status else ''}, {redact(failure, each.config())}")
        if obstacle is not None and output is Output.json:
            typer.echo(f"error: {obstacle}", err=True)
        if obstacle is not None or any(status.verdict() is not Verdict.RUNNING for status in statuses):
            raise typer.Exit(Exit.FAILED)


def _add_describing(cli: typer.Typer, context: Context) -> None:
    @cli.command("get", epilog=example("get chat4all-outbox > outbox.json"))
    def get_command(
        name: NameArgument,
        timeout: TimeoutOption = 10,
        url: UrlOption = CONNECT_URL,
    ) -> None:
        """Print the settings that Connect holds, as a connector file; secrets that stand in them are masked."""
        with context.connected(url, timeout) as (client, _):
            print_json({"name": name, "config": masked(client.get_config(name))})

    @cli.command("describe", epilog=example("describe chat4all-outbox"))
    def describe_command(
        name: NameArgument,
        timeout: TimeoutOption = 10,
        url: UrlOption = CONNECT_URL,
    ) -> None:
        """Show everything about one connector: parts, slot, heartbeat, offsets, topics, settings."""
        with context.connected(url, timeout) as (client, _):
            overview = _overview(client, name)
            offsets, topics = client.get_offsets(name), client.get_topics(name)
        facts, obstacle = _read_database(context)
        config, status = overview.config(), overview.status
        if status is not None:
            _print_table([status])
            for failure in status.failures():
                typer.echo(redact(failure, config))
        for line in _slot_lines(config, facts, obstacle):
            typer.echo(line)
        for offset in offsets:
            position = position_of(offset)
            read = format_lsn(position) if position is not None else str(offset.offset)
            typer.echo(f"offset of {offset.partition}: {read}")
        typer.echo(f"topics written to: {', '.join(topics) or 'none yet'}")
        typer.echo("settings:")
        for key, value in masked(config).items():
            typer.echo(f"  {key} = {value}")


def _overview(client: ConnectClient, name: str) -> Overview:
    found = client.get_overviews().get(name)
    if found is None:
        raise UnknownConnector(f"There is no connector {name}; Connect has {', '.join(client.names()) or 'none'}.")
    return found


def _read_database(context: Context) -> tuple[DatabaseFacts | None, str | None]:
    """What PostgreSQL shows, and what is in the way of it; neither if nobody says where it is."""
    try:
        with context.database() as database:
            return (database.read() if database else None), None
    except DatabaseUnreachable as error:
        return None, str(error)


def read_slot(context: Context, config: Config) -> tuple[Slot | None, int | None]:
    """The connector's slot, and how far the write-ahead log is written; None where nobody says where PostgreSQL is,
    Exit.FAILED when it does not answer or has no such slot."""
    facts, obstacle = _read_database(context)
    if obstacle is not None:
        fail(obstacle)
    name = slot_name(config)
    if facts is None or name is None:
        return None, None
    if name not in facts.slots:
        fail(f"PostgreSQL has no replication slot {name}.")
    return facts.slots[name], facts.current_lsn


def _print_table(statuses: Sequence[ConnectorStatus]) -> None:
    rows: list[tuple[str, str, str, str]] = []
    for status in statuses:
        rows.append((status.name, "connector", status.connector.state, status.connector.worker_id))
        rows += [(status.name, f"task {task.id}", task.state, task.worker_id) for task in status.tasks]
    print_table(("CONNECTOR", "PART", "STATE", "WORKER"), rows)


def _slot_lines(config: Config, facts: DatabaseFacts | None, obstacle: str | None) -> list[str]:
    name = slot_name(config)
    if name is None:
        return []
    if facts is None:
        return [f"slot {name}: {'unknown: ' + obstacle if obstacle else UNKNOWN}"]
    slot = facts.slots.get(name)
    if slot is None:
        return [f"slot {name}: does not exist"]
    reader = f"read by process {slot.active_pid}" if slot.is_active else "read by nobody"
    behind = f"{format_bytes(slot.lag_bytes)} behind, {format_bytes(slot.held_bytes)} held"
    beat = heartbeat_id(config)
    age = facts.heartbeat_ages.get(beat) if beat is not None else None
    heartbeat = "no heartbeat" if age is None else f"heartbeat {age:.1f} s old"
    return [f"slot {name}: {slot.wal_status}, {reader}, {behind}, {heartbeat}"]


def _as_json(overview: Overview, facts: DatabaseFacts | None) -> dict[str, Any]:
    status, config = overview.status, overview.config()
    assert status is not None  # noqa: S101 - the caller has chosen
    name, beat = slot_name(config), heartbeat_id(config)
    slot = facts.slots.get(name) if facts and name else None
    return {
        "name": status.name,
        "verdict": status.verdict().value,
        "connector": {"state": status.connector.state, "worker_id": status.connector.worker_id},
        "tasks": [{"id": t.id, "state": t.state, "worker_id": t.worker_id} for t in status.tasks],
        "failures": [redact(failure, config) for failure in status.failures()],
        "slot": slot
        and {
            "name": slot.name,
            "wal_status": slot.wal_status,
            "is_active": slot.is_active,
            "lag_bytes": slot.lag_bytes,
            "held_bytes": slot.held_bytes,
        },
        "heartbeat_age_seconds": facts.heartbeat_ages.get(beat) if facts and beat is not None else None,
    }
