"""The commands besides apply and status, against the in-memory Connect."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from connectors.cli import create_app
from connectors.cli.context import Context
from tests.fakes_connect import FakeConnect, FakeTime

Run = Callable[..., Result]


@pytest.fixture
def connect() -> FakeConnect:
    return FakeConnect(plugins={"k": ("needed",)}, status_lag=1)


@pytest.fixture
def environ() -> dict[str, str]:
    return {}


@pytest.fixture
def run(connect: FakeConnect, environ: dict[str, str]) -> Run:
    def invoke(*arguments: str | Path, answer: str = "") -> Result:
        fake_time = FakeTime()
        context = Context(connect.client, clock=fake_time.clock, sleep=fake_time.sleep, environ=environ)
        words = [str(argument) for argument in arguments]
        return CliRunner().invoke(create_app(context), words, input=answer, env={"CHAT4ALL_CONNECT_URL": None})

    return invoke


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "c.yaml").write_text("name: c\nconfig: {connector.class: k, needed: 1, tsks.max: 1}\n")
    return tmp_path


def test_a_plan_is_json_for_programs_and_changes_nothing(run: Run, folder: Path, connect: FakeConnect) -> None:
    result = run("plan", folder, "--output", "json")
    assert result.exit_code == 0
    (plan,) = json.loads(result.stdout)
    assert (plan["name"], plan["plan"], plan["state"]) == ("c", "create", "running")
    assert plan["config"]["needed"] == "1"
    assert connect.configs == {}
    run("apply", folder)
    connect.configs["c"]["needed"] = "2"
    (drift,) = json.loads(run("drift", folder, "-o", "json").stdout)
    assert drift["changes"] == [{"key": "needed", "before": "2", "after": "1"}]


def test_a_plan_tells_settings_that_nobody_knows(run: Run, folder: Path) -> None:
    assert run("plan", folder).stdout == (
        "create c\nnote: c: nobody knows the setting tsks.max; do you mean tasks.max?\n"
    )


def test_a_plan_that_connect_refuses_is_no_plan(run: Run, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("name: c\nconfig: {connector.class: k}\n")
    result = run("plan", tmp_path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "needed: The 'needed' value is invalid" in result.stderr


def test_validate_offline_asks_nobody(run: Run, folder: Path, connect: FakeConnect) -> None:
    assert run("validate", folder, "--offline").stdout == "c is valid\n"
    assert connect.calls == []


def test_pruning_needs_a_folder_and_a_yes(run: Run, folder: Path, connect: FakeConnect) -> None:
    run("apply", folder)
    connect.client().put("/connectors/other/config", json={"connector.class": "k", "needed": "1"})
    assert run("apply", folder / "c.yaml", "--prune").exit_code == 64
    assert run("apply", folder, "--prune", answer="n\n").exit_code == 1
    assert set(connect.configs) == {"c", "other"}
    assert run("apply", folder).stdout.splitlines()[:2] == ["unchanged c", "undeclared other"]
    assert run("apply", folder, "--prune", answer="y\n").exit_code == 0
    assert set(connect.configs) == {"c"}


def test_applying_without_waiting_ends_at_once(run: Run, folder: Path, connect: FakeConnect) -> None:
    connect.status_lag = 1000
    assert run("apply", folder, "--no-wait").exit_code == 0


def test_who_is_overtaken_is_told(run: Run, folder: Path, connect: FakeConnect) -> None:
    def change(config: object) -> None:
        if "c" in connect.configs:
            connect.configs["c"]["needed"] = "by someone else"

    connect.failure_of = change
    result = run("apply", folder)
    assert result.exit_code == 1
    assert result.stderr == "error: Somebody else changed c meanwhile: Connect holds other settings now.\n"


def test_what_get_prints_can_be_applied(run: Run, folder: Path, tmp_path: Path) -> None:
    run("apply", folder)
    (tmp_path / "again").mkdir()
    copy = tmp_path / "again" / "c.json"
    copy.write_text(run("get", "c").stdout)
    assert run("drift", copy).exit_code == 0


def test_what_is_shown_of_a_connector_has_no_secrets(run: Run, folder: Path, connect: FakeConnect) -> None:
    run("apply", folder)
    connect.configs["c"] |= {"x.password": "hunter2", "url": "http://u:hunter2@h/", "y.token": "${env:T}"}
    connect.fail("c", "x.Y: cannot log in, password=hunter2\n")
    for command in (["get", "c"], ["describe", "c"], ["status"], ["diff", folder], ["plan", folder]):
        output = run(*command).output
        assert "hunter2" not in output, command
    assert "${env:T}" in run("get", "c").stdout


def test_states_are_changed_and_told(run: Run, folder: Path) -> None:
    run("apply", folder)
    assert run("pause", "c").stdout == "c: connector PAUSED, task 0 PAUSED\n"
    assert run("stop", "c").stdout == "c: connector STOPPED, no task yet\n"
    assert run("resume", "c").stdout == "c: connector RUNNING, task 0 RUNNING\n"


def test_a_state_that_does_not_come_about_is_told(run: Run, folder: Path, connect: FakeConnect) -> None:
    run("apply", folder)
    connect.status_lag = 1000
    result = run("stop", "c", "--timeout", "5")
    assert (result.exit_code, result.stderr.startswith("error: c is not stopped after 5 s: ")) == (1, True)


def test_a_restart_of_what_failed_leaves_alone_what_runs(run: Run, folder: Path, connect: FakeConnect) -> None:
    run("apply", folder)
    connect.fail("c", "x.Y: z\n")
    assert run("restart", "c", "--failed").exit_code == 0
    assert run("status", "c").exit_code == 0
    assert run("restart", "c").stdout == "restarting c\n"


def test_offsets_are_shown_moved_and_forgotten(run: Run, folder: Path, connect: FakeConnect) -> None:
    run("apply", folder)
    connect.offsets["c"] = [{"partition": {"server": "s"}, "offset": {"lsn": 256, "txId": 7}}]
    assert "{'server': 's'}  0/100\n" in run("offsets", "show", "c").stdout
    assert run("offsets", "set", "c", "0/80", "--yes").exit_code == 1, "it runs"
    run("stop", "c")
    assert run("offsets", "set", "c", "0/80", answer="n\n").exit_code == 1
    assert run("offsets", "set", "c", "0/200", "--yes").exit_code == 1, "something would be lost"
    assert connect.offsets["c"][0]["offset"]["lsn"] == 256
    assert run("offsets", "set", "c", "0/80", answer="y\n").exit_code == 0
    assert connect.offsets["c"] == [
        {"partition": {"server": "s"}, "offset": {"lsn": 128, "lsn_proc": 128, "lsn_commit": 128}}
    ]
    assert run("offsets", "reset", "c", "--yes").exit_code == 0
    assert connect.offsets["c"] == []
    assert "begins where its replication slot is" in run("offsets", "set", "c", "0/80", "--yes").stderr


def test_log_levels_are_set_and_shown(run: Run, connect: FakeConnect) -> None:
    assert run("logs", "level", "io.debezium", "debug").stdout == "io.debezium logs DEBUG\n"
    assert run("logs", "level", "io").stdout == "LOGGER       LEVEL\nio.debezium  DEBUG\n"
    assert json.loads(run("logs", "level", "-o", "json").stdout) == {"io.debezium": "DEBUG", "root": "INFO"}


def test_plugins_are_shown(run: Run) -> None:
    assert run("plugins").stdout == "TYPE    CLASS  VERSION\nsource  k      1\n"
    assert json.loads(run("plugins", "--type", "sink", "-o", "json").stdout) == []


def test_an_unknown_connector_is_named_with_those_that_there_are(run: Run, folder: Path) -> None:
    run("apply", folder)
    result = run("describe", "d")
    assert (result.exit_code, result.stderr) == (1, "error: There is no connector d; Connect has c.\n")


def test_a_login_for_connect_comes_from_the_environment(
    run: Run, connect: FakeConnect, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str | None] = []
    answer = connect._answer

    def look(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("Authorization"))
        return answer(request)

    monkeypatch.setattr(connect, "_answer", look)
    run("status")
    environ |= {"CHAT4ALL_CONNECT_USER": "u", "CHAT4ALL_CONNECT_PASSWORD": "p"}
    run("status")
    assert seen == [None, "Basic dTpw"]


def test_a_database_that_does_not_answer_is_told_beside_the_status(
    run: Run, folder: Path, environ: dict[str, str]
) -> None:
    run("apply", folder)
    environ |= {"CHAT4ALL_DATABASE_HOST": "127.0.0.1", "CHAT4ALL_DATABASE_PORT": "9"}
    result = run("status", "-o", "json")
    assert (result.exit_code, result.stderr.startswith("error: PostgreSQL at 127.0.0.1:9")) == (1, True)
