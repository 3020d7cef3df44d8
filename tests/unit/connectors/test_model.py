"""A status comes down to a verdict and to the causes of what failed."""

from __future__ import annotations

import pytest

from connectors.model import ConnectorState, ConnectorStatus, TaskStatus, Verdict, causes, redact


def status(connector: str, *tasks: str) -> ConnectorStatus:
    return ConnectorStatus(
        name="c",
        connector=ConnectorState(state=connector, worker_id="w"),
        tasks=tuple(TaskStatus(id=number, state=state, worker_id="w") for number, state in enumerate(tasks)),
    )


@pytest.mark.parametrize(
    ("connector", "tasks", "verdict"),
    [
        ("RUNNING", ["RUNNING"], Verdict.RUNNING),
        ("RUNNING", ["RUNNING", "RUNNING"], Verdict.RUNNING),
        ("RUNNING", [], Verdict.PENDING),
        ("RUNNING", ["RUNNING", "UNASSIGNED"], Verdict.PENDING),
        ("UNASSIGNED", ["RUNNING"], Verdict.PENDING),
        ("RESTARTING", ["RESTARTING"], Verdict.PENDING),
        ("RUNNING", ["RUNNING", "FAILED"], Verdict.FAILED),
        ("FAILED", [], Verdict.FAILED),
        ("PAUSED", ["FAILED"], Verdict.FAILED),
        ("PAUSED", ["PAUSED"], Verdict.HALTED),
        ("STOPPED", [], Verdict.HALTED),
    ],
)
def test_a_connector_runs_only_when_it_and_every_task_run(connector: str, tasks: list[str], verdict: Verdict) -> None:
    assert status(connector, *tasks).verdict() is verdict


def test_a_trace_is_shortened_to_its_causes() -> None:
    trace = (
        "org.apache.kafka.connect.errors.ConnectException: Could not stream\n"
        "\tat io.debezium.Some.frame(Some.java:1)\n"
        "Caused by: org.postgresql.util.PSQLException: ERROR: no such slot\n"
        "  Hint: Make one.\n"
        "\tat org.postgresql.Other.frame(Other.java:2)\n"
        "\t... 7 more\n"
    )
    assert causes(trace) == (
        "ConnectException: Could not stream; caused by PSQLException: ERROR: no such slot Hint: Make one."
    )


@pytest.mark.parametrize("trace", [None, "", "\n", "\tat a.b(C.java:1)\n"])
def test_a_failure_without_a_trace_says_so(trace: str | None) -> None:
    assert causes(trace) == "Connect gives no reason"


def test_literal_secrets_are_taken_out_of_a_text_and_references_are_not() -> None:
    config = {"database.password": "hunter2", "other.secret": "${env:X}", "name": "c", "empty.token": ""}
    assert redact("{name=c, database.password=hunter2, ${env:X}}", config) == (
        "{name=c, database.password=********, ${env:X}}"
    )
