"""Connectors as code, on real Connect with two workers: plan, apply, drift; offsets; what is said and what never is."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from connectors.declared import CONFIGS
from infra.local.stack import Stack
from tests.chat_client import ChatClient
from tests.e2e.test_path import take_until, texts
from tests.second_worker import run_connectors, second_worker

OUTBOX = "chat4all-outbox"


@pytest.fixture(scope="module")
def urls(stack: Stack) -> Iterator[str]:
    """Both workers' addresses, one that nobody answers at first."""
    with second_worker(stack) as second:
        yield f"http://127.0.0.1:9,http://127.0.0.1:{second.port},http://127.0.0.1:{stack.ports.connect}"


@pytest.fixture
def rest(stack: Stack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{stack.ports.connect}", timeout=60, trust_env=False) as http:
        yield http


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What this project declares, and room for more."""
    shutil.copy(CONFIGS / "outbox.json", tmp_path)
    return tmp_path


@pytest.fixture
def declare(folder: Path, rest: httpx.Client) -> Iterator[Callable[..., str]]:
    """Writes a connector of its own slot into the folder; it is gone from Connect after the test."""
    names: list[str] = []

    def write(name: str | None = None, **changes: str) -> str:
        name = name or f"e2e-{uuid4().hex[:8]}"
        config = {
            "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
            "tasks.max": "1",
            "topic.prefix": name,
            "table.include.list": "public.table_that_does_not_exist",
            "plugin.name": "pgoutput",
            "slot.name": name.replace("-", "_"),
            "slot.drop.on.stop": "true",
            "publication.name": "chat4all_outbox",
            "publication.autocreate.mode": "disabled",
            "snapshot.mode": "no_data",
            "database.hostname": "${env:CHAT4ALL_CDC_DATABASE_HOST}",
            "database.port": "${env:CHAT4ALL_CDC_DATABASE_PORT}",
            "database.dbname": "${env:CHAT4ALL_CDC_DATABASE_NAME}",
            "database.user": "${env:CHAT4ALL_CDC_DATABASE_USER}",
            "database.password": "${env:CHAT4ALL_CDC_DATABASE_PASSWORD}",
        }
        config |= {key.replace("__", "."): value for key, value in changes.items()}
        (folder / f"{name}.json").write_text(json.dumps({"name": name, "config": config}))
        names.append(name)
        return name

    yield write
    for name in set(names):
        rest.delete(f"/connectors/{name}")


def test_plan_apply_and_drift_go_round(
    stack: Stack, urls: str, folder: Path, declare: Callable[..., str], rest: httpx.Client
) -> None:
    name = declare()
    planned = run_connectors(stack, "plan", folder, urls=urls)
    assert (planned.returncode, planned.stdout) == (0, f"unchanged {OUTBOX}\ncreate {name}\n"), planned.stderr
    assert name not in rest.get("/connectors").json(), "a plan changes nothing"
    assert run_connectors(stack, "drift", folder, urls=urls).returncode == 2

    applied = run_connectors(stack, "apply", folder, urls=urls)
    assert (applied.returncode, f"creating {name}\n" in applied.stdout) == (0, True), applied.stderr
    assert f"{name} runs: connector RUNNING, task 0 RUNNING\n" in applied.stdout
    again = run_connectors(stack, "apply", folder, urls=urls)
    assert f"unchanged {OUTBOX}\nunchanged {name}\n" in again.stdout
    assert run_connectors(stack, "drift", folder, urls=urls).returncode == 0

    config = rest.get(f"/connectors/{name}/config").json()
    rest.put(f"/connectors/{name}/config", json=config | {"poll.interval.ms": "77"}).raise_for_status()
    drifted = run_connectors(stack, "drift", folder, urls=urls)
    assert drifted.returncode == 2
    assert f"differs {name} (Connect -> declared):\n  - poll.interval.ms (was '77')\n" in drifted.stdout
    assert "-poll.interval.ms = 77\n" in run_connectors(stack, "diff", folder, urls=urls).stdout
    assert run_connectors(stack, "apply", folder, urls=urls).returncode == 0
    assert run_connectors(stack, "drift", folder, urls=urls).returncode == 0

    (folder / f"{name}.json").unlink()
    assert run_connectors(stack, "drift", folder, urls=urls).stdout == f"unchanged {OUTBOX}\nundeclared {name}\n"
    assert run_connectors(stack, "apply", folder, "--prune", urls=urls).returncode == 1, "nobody has said yes"
    assert name in rest.get("/connectors").json()
    pruned = run_connectors(stack, "apply", folder, "--prune", "--yes", urls=urls)
    assert (pruned.returncode, f"deleting {name}\n" in pruned.stdout) == (0, True), pruned.stderr
    deadline = time.monotonic() + 30
    while rest.get("/connectors").json() != [OUTBOX]:  # the other worker hears of it a moment later
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.long
def test_applies_at_the_same_time_leave_one_of_them_whole(
    stack: Stack, urls: str, folder: Path, declare: Callable[..., str], rest: httpx.Client, tmp_path: Path
) -> None:
    name = declare()
    first = json.loads((folder / f"{name}.json").read_text())
    variants = [first["config"] | {"poll.interval.ms": str(ms), "heartbeat.interval.ms": str(ms)} for ms in (11, 22)]
    paths = [tmp_path / f"variant-{number}.json" for number in range(2)]
    for path, config in zip(paths, variants, strict=True):
        path.write_text(json.dumps({"name": name, "config": config}))

    with ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(lambda number: run_connectors(stack, "apply", paths[number % 2], urls=urls), range(6)))

    for run in runs:
        assert "Traceback" not in run.stderr
        assert run.returncode == 0 or run.stderr.startswith("error: "), run.stderr
    held = rest.get(f"/connectors/{name}/config").json()
    assert held in [config | {"name": name} for config in variants]
    chosen = variants.index({key: value for key, value in held.items() if key != "name"})
    last = run_connectors(stack, "apply", paths[chosen], urls=urls)
    assert (last.returncode, f"unchanged {name}\n" in last.stdout) == (0, True), last.stderr


async def test_offsets_are_changed_only_when_stopped_and_never_lose_unasked(stack: Stack, client: ChatClient) -> None:
    alice = await client.register("alice")
    conversation_id = await client.create_conversation(alice)
    async with client.stream(alice) as events:
        await client.send(alice, conversation_id, "before")
        assert texts(await take_until(events, messages=1)) == ["before"]

        running = run_connectors(stack, "offsets", "reset", OUTBOX, "--yes")
        assert (running.returncode, f"`stop {OUTBOX}` first" in running.stderr) == (1, True)
        assert run_connectors(stack, "stop", OUTBOX).stdout == f"{OUTBOX}: connector STOPPED, no task yet\n"
        try:
            shown = run_connectors(stack, "offsets", "show", OUTBOX, "--output", "json")
            (offset,) = json.loads(shown.stdout)
            assert offset["partition"] == {"server": "chat4all"}
            await client.send(alice, conversation_id, "meanwhile")

            ahead = run_connectors(stack, "offsets", "set", OUTBOX, str(offset["offset"]["lsn"] + 64), "--yes")
            assert (ahead.returncode, "is never streamed" in ahead.stdout) == (1, True), ahead.stderr
            assert "--accept-loss" in ahead.stderr
            beyond = run_connectors(stack, "offsets", "set", OUTBOX, "FFFF/0", "--yes", "--accept-loss")
            assert (beyond.returncode, "is not written yet" in beyond.stderr) == (1, True)
            behind = run_connectors(stack, "offsets", "set", OUTBOX, "0/1", "--yes")
            assert (behind.returncode, "PostgreSQL keeps nothing before" in behind.stderr) == (1, True)
            assert run_connectors(stack, "offsets", "reset", OUTBOX).returncode == 1, "nobody has said yes"
            assert json.loads(run_connectors(stack, "offsets", "show", OUTBOX, "-o", "json").stdout) == [offset]

            reset = run_connectors(stack, "offsets", "reset", OUTBOX, "--yes", "--accept-loss")
            assert reset.returncode == 0, reset.stderr
        finally:
            resumed = run_connectors(stack, "resume", OUTBOX)
        assert resumed.returncode == 0, resumed.stderr
        assert texts(await take_until(events, messages=1)) == ["meanwhile"]


def test_a_secret_may_come_from_a_file_where_connect_runs(
    stack: Stack, declare: Callable[..., str], folder: Path
) -> None:
    secrets = stack.config.state_dir / "connect" / "files" / "cdc.properties"
    secrets.write_text(f"right={stack.secrets.database_cdc}\nwrong=not-it\n")
    secrets.chmod(0o600)
    name = declare(database__password=f"${{file:{secrets}:right}}")
    assert run_connectors(stack, "validate", folder / f"{name}.json").stdout == f"{name} is valid\n"
    declare(name, database__password=f"${{file:{secrets}:wrong}}")
    refused = run_connectors(stack, "apply", folder / f"{name}.json")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith(f"error: Connect refuses the settings of {name}:\n  database.hostname: ")
    assert "password authentication failed" in refused.stderr
    assert "not-it" not in refused.stderr


def test_an_environment_is_planned_by_its_overlay(stack: Stack) -> None:
    planned = run_connectors(stack, "plan", variables={"CHAT4ALL_ENVIRONMENT": "catch-up"})
    assert (planned.returncode, planned.stdout) == (
        0,
        f"update {OUTBOX}:\n  ~ max.batch.size: '1' -> '2048'\n",
    ), planned.stderr


def test_a_setting_that_nobody_knows_is_told(stack: Stack, declare: Callable[..., str], folder: Path) -> None:
    name = declare(poll__intervall__ms="10")
    validated = run_connectors(stack, "validate", folder)
    assert validated.stdout == (
        f"note: {name}: nobody knows the setting poll.intervall.ms; do you mean poll.interval.ms?\n"
        f"{OUTBOX} is valid\n{name} is valid\n"
    )


def test_status_tells_slot_and_heartbeat_or_that_they_are_unknown(stack: Stack) -> None:
    seen = run_connectors(stack, "status", OUTBOX)
    assert seen.returncode == 0, seen.stderr
    assert f"{OUTBOX}, slot chat4all_outbox: reserved, read by process " in seen.stdout
    assert " s old\n" in seen.stdout
    (status,) = json.loads(run_connectors(stack, "status", OUTBOX, "-o", "json").stdout)
    assert status["slot"]["wal_status"] == "reserved"
    assert status["heartbeat_age_seconds"] < 60
    blind = run_connectors(stack, "status", OUTBOX, database=False)
    assert (blind.returncode, "slot chat4all_outbox: unknown" in blind.stdout) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "more", "code", "sentence"),
    [
        (["get", "nobody"], {}, 1, "nobody"),
        (["restart", "nobody"], {}, 1, "nobody"),
        (["offsets", "show", "nobody"], {}, 1, "nobody"),
        (["plan", "broken.json"], {}, 64, "broken.json is not JSON: "),
        (["plan", "--environment", "nowhere"], {}, 64, "There is no overlay "),
        (["status"], {"CHAT4ALL_DATABASE_PASSWORD": "wrong"}, 1, "password authentication failed"),
        (["status"], {"CHAT4ALL_DATABASE_PORT": "none"}, 1, "CHAT4ALL_DATABASE_PORT"),
        (["status", "--url", "http://127.0.0.1:9", "--timeout", "1"], {}, 1, "does not answer at http://127.0.0.1:9"),
        (["supervise", "broken.json"], {}, 64, "broken.json is not JSON: "),
        (["logs", "level", "io.debezium", "LOUD"], {}, 64, "There is no level LOUD"),
    ],
)
def test_what_cannot_be_done_is_a_sentence_and_an_exit_code(
    stack: Stack, tmp_path: Path, arguments: list[str], more: dict[str, str], code: int, sentence: str
) -> None:
    (tmp_path / "broken.json").write_text('{"name": ')
    words = [tmp_path / word if word.endswith(".json") else word for word in arguments]
    run = run_connectors(stack, *words, variables=more)
    assert (run.returncode, sentence in run.stdout + run.stderr) == (code, True), run.stdout + run.stderr
    assert "Traceback" not in run.stderr
    assert stack.secrets.database_monitor not in run.stderr


def test_no_secret_is_in_any_output_log_or_answer(stack: Stack, rest: httpx.Client) -> None:
    outputs = [
        run_connectors(stack, *arguments)
        for arguments in (["plan"], ["diff"], ["status"], ["describe", OUTBOX], ["get", OUTBOX], ["plan", "-o", "json"])
    ]
    config = rest.get(f"/connectors/{OUTBOX}/config").json()
    class_ = config["connector.class"]
    told = {f"{index}": run.stdout + run.stderr for index, run in enumerate(outputs)}
    for path in ("", "/config", "/status", "/tasks", "/offsets", "/topics"):
        told[path] = rest.get(f"/connectors/{OUTBOX}{path}").text
    told["all"] = rest.get("/connectors", params={"expand": ["info", "status"]}).text
    told["validate"] = rest.put(f"/connector-plugins/{class_}/config/validate", json=config).text
    for program in ("connect", "connect-2", "supervise", "connector"):
        log = stack.config.logs_dir / f"{program}.log"
        told[program] = log.read_text(errors="replace") if log.exists() else ""
    secrets = [getattr(stack.secrets, name) for name in stack.secrets.__slots__]
    assert len(secrets) == len(set(secrets)) >= 7
    for where, text in told.items():
        for secret in secrets:
            assert secret not in text, where
    assert "${env:CHAT4ALL_CDC_DATABASE_PASSWORD}" in told["/config"]


@pytest.mark.long
def test_a_connect_that_is_away_is_waited_for(stack: Stack) -> None:
    stack.stop_program("connect")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(run_connectors, stack, "apply", "--timeout", "120")
        time.sleep(3)
        stack.start_program("connect")
        run = waiting.result()
    assert (run.returncode, f"unchanged {OUTBOX}\n" in run.stdout) == (0, True), run.stderr
