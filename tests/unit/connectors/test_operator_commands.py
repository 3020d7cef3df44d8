"""`doctor`, `recover` and `outboxes` when they are misused, or what they need does not answer: one clear sentence, an
exit code for scripts, never a traceback and never a password."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from connectors.cli import create_app
from connectors.cli.context import Context
from tests.conftest import ROOT

AWAY = {
    "CHAT4ALL_DATABASE_HOST": "127.0.0.1",
    "CHAT4ALL_DATABASE_PORT": "9",
    "CHAT4ALL_DATABASE_PASSWORD": "hunter2-secret",
}
NOBODY = ("--url", "http://127.0.0.1:9", "--timeout", "1")


def run(*arguments: str, environ: Mapping[str, str] | None = None) -> Result:
    return CliRunner().invoke(create_app(Context(environ=dict(environ or {}))), list(arguments))


def only_sentence(result: Result) -> str:
    """What it says, if that is one line on standard error and nothing else."""
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    (line,) = result.stderr.strip().splitlines()
    return line


@pytest.mark.parametrize("command", ["recover", "outboxes"])
def test_without_a_database_it_says_which_variables_name_one(command: str) -> None:
    result = run(command, *NOBODY)

    assert result.exit_code == 1
    assert "CHAT4ALL_DATABASE_HOST" in only_sentence(result)


@pytest.mark.parametrize("command", ["recover", "outboxes"])
def test_a_database_that_does_not_answer_is_named_without_the_password(command: str) -> None:
    result = run(command, *NOBODY, environ=AWAY)

    assert result.exit_code == 1
    sentence = only_sentence(result)
    assert sentence.startswith("error: PostgreSQL at 127.0.0.1:9 as chat_")
    assert "hunter2" not in sentence


def test_a_port_that_is_none_is_named() -> None:
    result = run("recover", *NOBODY, environ={**AWAY, "CHAT4ALL_DATABASE_PORT": "many"})

    assert result.exit_code == 1
    assert "CHAT4ALL_DATABASE_PORT" in only_sentence(result)


@pytest.mark.parametrize(
    "arguments",
    [
        ("recover", "--since", "yesterday"),
        ("recover", "--rate", "0"),
        ("recover", "--url", "ftp://user:hunter2@nowhere"),
        ("doctor", "--worker-file", "absent.properties"),
        ("outboxes", "absent.json"),
    ],
    ids=" ".join,
)
def test_misuse_has_an_exit_code_of_its_own(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)

    assert result.exit_code == 64
    assert "Traceback" not in result.output
    assert "hunter2" not in result.output


def test_more_outboxes_than_there_can_be_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "outbox.json"
    path.write_text(json.dumps({**json.loads((ROOT / "connectors/configs/outbox.json").read_text()), "outboxes": 99}))

    result = run("outboxes", str(path), *NOBODY, environ=AWAY)

    assert result.exit_code == 64
    assert "1 to 16 outboxes" in only_sentence(result)


def test_outboxes_need_the_connector_of_the_first_one(tmp_path: Path) -> None:
    document = json.loads((ROOT / "connectors/configs/outbox.json").read_text())
    document["name"] = "other"
    document["config"]["slot.name"] = "other"
    (tmp_path / "other.json").write_text(json.dumps(document))

    result = run("outboxes", str(tmp_path), *NOBODY, environ=AWAY)

    assert result.exit_code == 64
    assert "Nobody declares the connector chat4all-outbox" in only_sentence(result)


def test_the_doctor_examines_what_it_can_when_nothing_answers() -> None:
    result = run("doctor", *NOBODY, "--kafka", "127.0.0.1:9", "--output", "json", environ=AWAY)

    assert result.exit_code == 2
    found = json.loads(result.stdout)
    assert {each["check"] for each in found} == {"postgres.reachable", "connect.reachable", "kafka.reachable"}
    assert "hunter2" not in result.output
