"""The configuration that supervisord is given, read back as supervisord reads it."""

from __future__ import annotations

import configparser
import shlex
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import pytest

from infra.local.config import StackConfig
from infra.local.errors import StackError
from infra.local.postgres import Account
from infra.local.program import STACK_MARK, Site
from infra.local.programs import PROGRAMS, TOOLS
from infra.local.secrets import Secrets
from infra.local.supervisor import Command, Supervisor, render_config

ROOT = Path("/srv/100% chat")
STATE = ROOT / ".local" / "state"


def parsed(commands: list[Command], user: str | None = None) -> Mapping[str, Mapping[str, str]]:
    text = render_config(commands, root=ROOT, state_dir=STATE, socket_path=STATE / "s.sock", user=user)
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";", "#"), strict=True)
    parser.read_string(text)
    return parser


def command(argv: list[str], environment: dict[str, str] | None = None) -> Command:
    return Command(
        name="some",
        argv=argv,
        environment=environment or {},
        stop_signal="TERM",
        stop_seconds=15,
        stops_as_group=True,
        priority=1,
    )


def test_arguments_with_spaces_and_percent_signs_arrive_whole() -> None:
    section = parsed([command(["/bin/x", "--dir=/srv/100% chat", "two words"])])["program:some"]

    # supervisord expands %(…)s and %% first, then splits like a shell.
    assert shlex.split(section["command"] % {}) == ["/bin/x", "--dir=/srv/100% chat", "two words"]


def test_variables_are_quoted() -> None:
    section = parsed([command(["/bin/x"], {"A": "one two", "B": "50%"})])["program:some"]

    assert section["environment"] == 'A="one two",B="50%%"'


def test_a_program_that_ends_is_started_again_without_end_but_never_by_itself_at_first() -> None:
    section = parsed([command(["/bin/x"])])["program:some"]

    assert (section["autostart"], section["autorestart"]) == ("false", "true")
    assert int(section["startretries"]) > 100_000


def test_the_socket_is_only_ours() -> None:
    assert parsed([])["unix_http_server"]["chmod"] == "0700"


def test_a_user_is_named_only_for_root() -> None:
    assert "user" not in parsed([])["supervisord"]
    assert parsed([], user="root")["supervisord"]["user"] == "root"


def test_no_password_is_an_argument_of_a_program() -> None:
    passwords = Secrets(**{field.name: f"{field.name}-pw" for field in fields(Secrets)})
    config = StackConfig(root=Path.cwd(), state_dir=STATE, artifacts_dir=ROOT)
    site = Site(config=config, secrets=passwords, account=Account(), java="/usr/bin/java")

    for program in PROGRAMS:
        assert "-pw" not in " ".join(program.command(site))
        assert program.environment(site)[STACK_MARK] == str(STATE)


def test_each_program_and_tool_logs_in_as_its_own_role() -> None:
    passwords = Secrets(**{field.name: f"{field.name}-pw" for field in fields(Secrets)})
    config = StackConfig(root=Path.cwd(), state_dir=STATE, artifacts_dir=ROOT)
    site = Site(config=config, secrets=passwords, account=Account(), java="/usr/bin/java")
    environments = {program.name: program.environment for program in PROGRAMS} | dict(TOOLS)
    given = {name: " ".join(environment(site).values()) for name, environment in environments.items()}

    found = {
        name: {word.removesuffix("-pw") for word in values.split() if word.endswith("-pw")}
        for name, values in given.items()
    }

    assert found == {
        "canary": {"canary_password"},
        "postgres": set(),
        "gateway": set(),
        "supervise": {"database_monitor"},
        "blackbox": set(),
        "alertmanager": set(),
        "prometheus": set(),
        "postgres-exporter": {"database_monitor"},
        "redis-exporter": {"redis_exporter"},
        "node-exporter": set(),
        "redis": set(),
        "kafka": set(),
        "connect": {"database_cdc"},
        "ingest-api": {"database_api", "redis_limiter"},
        "timeline": {"database_reader", "redis"},
        "audit": {"database_reader", "redis"},
        "router": {"database_reader"},
        "channels": {"database_channels", "redis"},
        "delivery": {"database_reader", "redis", "cursor_secret"},
        "doctor": {"database_monitor"},
        "outboxes": {"database_owner"},
        "recover": {"database_recovery"},
    }


def test_a_configuration_that_supervisord_refuses_is_told_without_passwords(tmp_path: Path) -> None:
    config = tmp_path / "supervisord.conf"
    config.write_text(
        f"[supervisord]\nlogfile={tmp_path}/log\npidfile={tmp_path}/pid\n"
        "[program:api]\ncommand=true\n"
        'environment=CHAT4ALL_DATABASE_PASSWORD="open \\"sesame\\" now",'
        'CHAT4ALL_REDIS_PASSWORD=abracadabra,BAD="%(x)s"\n'
    )
    with pytest.raises(StackError) as error:
        Supervisor(tmp_path / "socket").launch(config, {"PATH": "/usr/bin:/bin"})
    assert "the rest may have passwords" in str(error.value)
    assert "sesame" not in str(error.value)
    assert "abracadabra" not in str(error.value)
