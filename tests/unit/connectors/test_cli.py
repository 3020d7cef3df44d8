"""The command line: what it says, where, and with which exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.main import get_command
from typer.testing import CliRunner, Result

from connectors.__main__ import main
from connectors.cli import create_app
from connectors.cli.context import Context
from tests.fakes_connect import REBALANCING, FakeConnect, FakeTime

TRACE = "org.x.ConnectException: cannot stream\n\tat a.b(C.java:1)\nCaused by: java.net.Other: gone\n"
Run = Callable[..., Result]


@pytest.fixture
def connect() -> FakeConnect:
    return FakeConnect(plugins={"k": ("needed",)}, status_lag=2)


@pytest.fixture
def run(connect: FakeConnect) -> Run:
    def invoke(*arguments: str, answer: str = "") -> Result:
        fake_time = FakeTime()
        context = Context(lambda _: connect.client(), clock=fake_time.clock, sleep=fake_time.sleep, environ={})
        app = create_app(context)
        return CliRunner().invoke(app, arguments, input=answer, env={"CHAT4ALL_CONNECT_URL": None})

    return invoke


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    def write_file(**settings: str) -> str:
        path = tmp_path / "connector.json"
        path.write_text(json.dumps({"name": "c", "config": {"connector.class": "k", "needed": "1", **settings}}))
        return str(path)

    return write_file


@pytest.fixture
def write_state(tmp_path: Path) -> Callable[[str], str]:
    def write_file(state: str) -> str:
        path = tmp_path / "connector.yaml"
        path.write_text(f"name: c\nstate: {state}\nconfig: {{connector.class: k, needed: 1}}\n")
        return str(path)

    return write_file


def test_the_first_apply_creates_and_the_second_changes_nothing(
    run: Run, write: Callable[..., str], connect: FakeConnect
) -> None:
    first = run("apply", write())
    assert (first.exit_code, first.stdout) == (0, "creating c\nc runs: connector RUNNING, task 0 RUNNING\n")
    writes = [call for call in connect.calls if call == "PUT /connectors/c/config"]
    second = run("apply", write())
    assert (second.exit_code, second.stdout) == (0, "unchanged c\nc runs: connector RUNNING, task 0 RUNNING\n")
    assert [call for call in connect.calls if call == "PUT /connectors/c/config"] == writes


def test_an_update_tells_each_difference_and_masks_secrets(
    run: Run, write: Callable[..., str], connect: FakeConnect
) -> None:
    run("apply", write(a="1"))
    connect.configs["c"]["password"] = "hunter2"
    result = run("apply", write(a="2", password="${env:P}"))
    assert result.exit_code == 0
    assert "  ~ a: '1' -> '2'\n  ~ password: ******** -> '${env:P}'\n" in result.stdout
    assert "hunter" not in result.output


def test_apply_waits_out_a_rebalance(run: Run, write: Callable[..., str], connect: FakeConnect) -> None:
    connect.interruptions = [REBALANCING, httpx.ConnectError("refused"), REBALANCING]
    assert run("apply", write()).exit_code == 0


def test_a_task_that_fails_is_told_by_its_causes(run: Run, write: Callable[..., str], connect: FakeConnect) -> None:
    connect.failure_of = lambda _: TRACE
    result = run("apply", write())
    assert (result.exit_code, result.stdout) == (1, "creating c\n")
    assert result.stderr == (
        "error: c does not run: connector RUNNING, task 0 FAILED.\n"
        "  task 0: ConnectException: cannot stream; caused by Other: gone\n"
    )
    assert "POST /connectors/c/restart" not in connect.calls


def test_a_task_that_failed_under_unchanged_settings_is_restarted_once(
    run: Run, write: Callable[..., str], connect: FakeConnect
) -> None:
    run("apply", write())
    connect.fail("c", TRACE)
    result = run("apply", write())
    assert result.exit_code == 0
    assert "restarting what failed in c:\n  task 0: ConnectException: cannot stream" in result.stdout
    assert connect.calls.count("POST /connectors/c/restart") == 1


def test_a_task_that_fails_again_is_not_restarted_again(
    run: Run, write: Callable[..., str], connect: FakeConnect
) -> None:
    connect.failure_of = lambda _: TRACE
    run("apply", write())
    assert run("apply", write()).exit_code == 1
    assert connect.calls.count("POST /connectors/c/restart") == 1


def test_the_old_status_that_connect_shows_after_an_update_is_not_believed(
    run: Run, write: Callable[..., str], connect: FakeConnect
) -> None:
    run("apply", write())
    connect.failure_of = lambda config: TRACE if config.get("a") == "bad" else None
    assert run("apply", write(a="bad")).exit_code == 1
    assert run("apply", write(a="good")).exit_code == 0


def test_a_connector_that_someone_paused_is_resumed(run: Run, write: Callable[..., str]) -> None:
    run("apply", write())
    run("pause", "c")
    assert run("drift", write()).exit_code == 2
    result = run("apply", write())
    assert (result.exit_code, result.stdout) == (
        0,
        "updating c:\n  ~ state: paused -> running\nc runs: connector RUNNING, task 0 RUNNING\n",
    )


@pytest.mark.parametrize(("state", "verb"), [("paused", "is paused"), ("stopped", "is stopped")])
def test_a_connector_that_is_not_to_run_never_does(
    run: Run, write_state: Callable[[str], str], connect: FakeConnect, state: str, verb: str
) -> None:
    result = run("apply", write_state(state))
    assert (result.exit_code, f"c {verb}:" in result.stdout) == (0, True)
    assert "PUT /connectors/c/config" not in connect.calls
    assert run("drift", write_state(state)).exit_code == 0
    assert run("apply", write_state("running")).exit_code == 0
    assert connect.told["c"] == "RUNNING"


def test_apply_gives_up_at_its_deadline(run: Run, write: Callable[..., str], connect: FakeConnect) -> None:
    connect.status_lag = 1000
    result = run("apply", write(), "--timeout", "5")
    assert result.exit_code == 1
    assert result.stderr == "error: c did not settle within 5 s: Connect shows no status of it.\n"


def test_every_refused_setting_is_told_and_nothing_is_written(run: Run, tmp_path: Path, connect: FakeConnect) -> None:
    path = tmp_path / "c.json"
    path.write_text('{"name": "c", "config": {"connector.class": "k"}}')
    result = run("apply", str(path))
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Connect refuses the settings of c:\n  needed: The 'needed' value is invalid" in result.stderr
    assert connect.configs == {}


def test_secrets_that_connect_repeats_are_masked(run: Run, write: Callable[..., str], connect: FakeConnect) -> None:
    connect.interruptions = [httpx.Response(400, json={"message": "config {password=hunter2} is bad"})]
    result = run("apply", write())
    assert (result.exit_code, result.stderr) == (1, "error: config {password=********} is bad\n")


def test_status_is_a_table_for_people(run: Run, write: Callable[..., str]) -> None:
    run("apply", write())
    result = run("status")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "CONNECTOR  PART       STATE    WORKER",
        "c          connector  RUNNING  connect.test:8083",
        "c          task 0     RUNNING  connect.test:8083",
    ]


def test_status_is_json_for_programs_and_its_exit_code_tells_what_failed(
    run: Run, write: Callable[..., str], connect: FakeConnect
) -> None:
    run("apply", write())
    connect.fail("c", TRACE)
    result = run("status", "c", "--output", "json")
    assert result.exit_code == 1
    (status,) = json.loads(result.stdout)
    assert (status["name"], status["verdict"]) == ("c", "failed")
    assert status["failures"] == ["task 0: ConnectException: cannot stream; caused by Other: gone"]


def test_delete_asks_first(run: Run, write: Callable[..., str], connect: FakeConnect) -> None:
    run("apply", write())
    assert run("delete", "c", answer="n\n").exit_code == 1
    assert "c" in connect.configs
    assert run("delete", "c", answer="y\n").exit_code == 0
    assert "c" not in connect.configs


def test_delete_with_yes_does_not_ask(run: Run, write: Callable[..., str], connect: FakeConnect) -> None:
    run("apply", write())
    assert run("delete", "c", "--yes").stdout == "deleted c\n"
    assert connect.configs == {}


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["status", "nobody"], 1, "nobody"),
        (["delete", "nobody", "--yes"], 1, "nobody"),
        (["apply", "missing.json"], 64, "missing.json cannot be read: No such file or directory."),
        (["status", "--url", "ftp://x"], 64, "--url must be an http or https address"),
        (["status", "--url", "http://u:hunter2@x"], 64, "--url must be an http or https address"),
        (["status", "--url", "http://x/path"], 64, "--url must be an http or https address"),
        (["status", "--url", "http://x:port"], 64, "--url must be an http or https address"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_on_stderr(
    run: Run, arguments: list[str], code: int, sentence: str
) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert sentence in result.stderr
    assert "hunter" not in result.output


def test_a_connect_that_does_not_answer_is_named(run: Run, connect: FakeConnect) -> None:
    connect.interruptions = [httpx.ConnectError("Connection refused")] * 100
    result = run("status")
    assert result.exit_code == 1
    assert result.stderr == (
        "error: Kafka Connect does not answer at http://connect.test (waited 10 s): Connection refused\n"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["get"],
        ["nothing"],
        ["offsets", "set", "c", "here"],
        ["logs", "level", "x", "LOUD"],
        ["status", "--output", "xml"],
        ["status", "--what"],
    ],
)
def test_a_command_line_that_is_wrong_has_an_exit_code_of_its_own(run: Run, arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 64


COMMANDS = [
    *("plan", "diff", "apply", "drift", "validate", "status", "get", "describe", "plugins", "pause", "resume", "stop"),
    *(
        "restart",
        "delete",
        "supervise",
        "doctor",
        "recover",
        "outboxes",
        "offsets",
        "offsets show",
        "offsets set",
        "offsets reset",
        "logs",
        "logs level",
    ),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_and_the_exit_codes(run: Run, command: str) -> None:
    text = " ".join(run(*command.split(), "--help").stdout.split())
    assert f"Example: chat4all-connectors {command}" in text
    assert "Exit codes: 0 done" in text


def names_of(command: Any, prefix: str = "") -> set[str]:
    """Every command and group below this one, by what is typed for it."""
    found: set[str] = set()
    for name, below in getattr(command, "commands", {}).items():
        found |= {prefix + name} | names_of(below, f"{prefix}{name} ")
    return found


def test_every_command_is_among_those_whose_help_is_looked_at() -> None:
    assert names_of(get_command(create_app(Context(environ={})))) == set(COMMANDS)


def test_the_shell_completes_commands(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("_CHAT4ALL_CONNECTORS_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "chat4all-connectors p")
    monkeypatch.setenv("COMP_CWORD", "1")
    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().out.split() == ["plan", "plugins", "pause"]


def test_the_program_is_called_by_its_installed_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["__main__.py", "--help"])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 0
    assert "Usage: chat4all-connectors" in capsys.readouterr().out
