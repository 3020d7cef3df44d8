"""One suite over Kafka Connect's REST as the client sees it: the in-memory double, and the real one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx
import pytest

from connectors.apply import carry_out, make_plan, validate, wait_until_settled
from connectors.config_file import ConnectorFile, TargetState
from connectors.connect import (
    ConnectClient,
    Deadline,
    NotStopped,
    RejectedConfig,
    UnknownConnector,
)
from connectors.declared import Declaration
from connectors.model import Config, SourceOffset, Verdict
from connectors.reconcile import Create, Plan, Unchanged, Update
from tests.fakes_connect import FakeConnect, FakeTime

CLASS = "io.debezium.connector.postgresql.PostgresConnector"
MISSING_PUBLICATION = "contract_missing"
TRACE = (
    "org.apache.kafka.connect.errors.ConnectException: Publication autocreation is disabled, please create one and"
    " restart the connector.\n\tat io.debezium.Some.frame(Some.java:1)\n"
)


@dataclass
class Connect:
    """A Connect under test: a client for it, its deadline, and configs with a name and a slot of their own."""

    client: ConnectClient
    deadline: Deadline
    name: str = field(default_factory=lambda: f"contract-{uuid4().hex[:12]}")

    def good_config(self, **changes: str) -> Config:
        """A connector that runs and captures nothing; its slot goes when it stops."""
        config = {
            "name": self.name,
            "connector.class": CLASS,
            "tasks.max": "1",
            "topic.prefix": self.name,
            "table.include.list": "public.table_that_does_not_exist",
            "plugin.name": "pgoutput",
            "slot.name": self.name.replace("-", "_"),
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
        return config | {key.replace("__", "."): value for key, value in changes.items()}

    def failing_config(self) -> Config:
        """A connector that passes validation and whose task cannot start."""
        return self.good_config(publication__name=MISSING_PUBLICATION)

    def apply(self, config: Config, state: TargetState = TargetState.running) -> Plan:
        """What the command `apply` does; the plan that it carried out."""
        declaration = Declaration((ConnectorFile(self.name, CLASS, config, state),), is_whole=False)
        validate(self.client, declaration.connectors)
        plans = make_plan(self.client, declaration)
        carry_out(self.client, plans, prune=False)
        wait_until_settled(self.client, plans, self.deadline, on_restart=lambda _: None)
        return plans[0]

    def stop(self) -> None:
        """Has the connector stop, and waits until it has."""
        self.client.set_state(self.name, TargetState.stopped)
        self.wait_for(lambda: self.client.get_status(self.name).is_told("STOPPED"))

    def log_level(self, logger: str) -> str | None:
        """A logger's level on the worker that answers, None if it was not set."""
        found = self.client.get_log_levels().get(logger)
        return found.level if found else None

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Returns once the condition holds. Connect does most things a moment after it has answered."""
        while not condition():
            assert self.deadline.pause(0.2), "the condition did not come to hold"

    def has_verdict(self, verdict: Verdict) -> bool:
        """Whether the connector has come to this verdict."""
        try:
            return self.client.get_status(self.name).verdict() is verdict
        except UnknownConnector:
            return False


@pytest.fixture(params=["double", "real"])
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    http, deadline = _real(request) if request.param == "real" else _double()
    with http:
        under_test = Connect(ConnectClient([http], deadline), deadline)
        yield under_test
        if under_test.name in under_test.client.names():
            under_test.client.delete(under_test.name)


def _double() -> tuple[httpx.Client, Deadline]:
    double = FakeConnect(
        plugins={CLASS: ("database.hostname", "topic.prefix")},
        failure_of=lambda config: TRACE if config["publication.name"] == MISSING_PUBLICATION else None,
        status_lag=2,
    )
    fake_time = FakeTime()
    return double.client(), Deadline(60, clock=fake_time.clock, sleep=fake_time.sleep)


def _real(request: pytest.FixtureRequest) -> tuple[httpx.Client, Deadline]:
    stack: Any = request.getfixturevalue("stack")
    url = f"http://127.0.0.1:{stack.ports.connect}"
    return httpx.Client(base_url=url, trust_env=False), Deadline(60, clock=time.monotonic)


def test_a_connector_that_was_put_is_listed_and_its_settings_are_read_back(connect: Connect) -> None:
    connect.client.put_config(connect.name, connect.good_config())
    connect.wait_for(lambda: connect.name in connect.client.names())
    assert connect.client.find_config(connect.name) == connect.good_config()


def test_the_environment_is_never_read_back_in_place_of_a_reference_to_it(connect: Connect) -> None:
    connect.client.put_config(connect.name, connect.good_config())
    connect.wait_for(lambda: connect.client.find_config(connect.name) is not None)
    config = connect.client.find_config(connect.name) or {}
    assert config["database.password"] == "${env:CHAT4ALL_CDC_DATABASE_PASSWORD}"


def test_a_second_put_replaces_all_settings(connect: Connect) -> None:
    connect.client.put_config(connect.name, connect.good_config(poll__interval__ms="10"))
    connect.client.put_config(connect.name, connect.good_config(max__batch__size="1"))
    connect.wait_for(lambda: "max.batch.size" in (connect.client.find_config(connect.name) or {}))
    assert "poll.interval.ms" not in (connect.client.find_config(connect.name) or {})


def test_a_sound_connector_comes_to_run_with_one_task(connect: Connect) -> None:
    connect.client.put_config(connect.name, connect.good_config())
    connect.wait_for(lambda: connect.has_verdict(Verdict.RUNNING))
    status = connect.client.get_status(connect.name)
    assert (status.name, [task.id for task in status.tasks], status.failures()) == (connect.name, [0], [])


def test_a_task_that_cannot_start_is_failed_and_its_trace_says_why(connect: Connect) -> None:
    connect.client.put_config(connect.name, connect.failing_config())
    connect.wait_for(lambda: connect.has_verdict(Verdict.FAILED))
    assert connect.client.get_status(connect.name).failures() == [
        "task 0: ConnectException: Publication autocreation is disabled, please create one and restart the connector."
    ]


def test_a_restart_that_changes_nothing_leaves_the_task_failed(connect: Connect) -> None:
    connect.client.put_config(connect.name, connect.failing_config())
    connect.wait_for(lambda: connect.has_verdict(Verdict.FAILED))
    connect.client.restart(connect.name, only_failed=True)
    connect.wait_for(lambda: connect.has_verdict(Verdict.FAILED))


def test_a_failed_connector_runs_after_its_settings_were_put_right(connect: Connect) -> None:
    connect.client.put_config(connect.name, connect.failing_config())
    connect.wait_for(lambda: connect.has_verdict(Verdict.FAILED))
    plan = connect.apply(connect.good_config())
    assert isinstance(plan, Update)
    assert [change.key for change in plan.changes] == ["publication.name"]
    assert connect.has_verdict(Verdict.RUNNING)


def test_applying_twice_creates_and_then_changes_nothing(connect: Connect) -> None:
    assert isinstance(connect.apply(connect.good_config()), Create)
    assert isinstance(connect.apply(connect.good_config()), Unchanged)


def test_a_deleted_connector_is_gone(connect: Connect) -> None:
    connect.apply(connect.good_config())
    connect.client.delete(connect.name)
    connect.wait_for(lambda: connect.name not in connect.client.names())
    assert connect.client.find_config(connect.name) is None


CALLS: dict[str, Callable[[ConnectClient, str], object]] = {
    "status": lambda client, name: client.get_status(name),
    "config": lambda client, name: client.get_config(name),
    "offsets": lambda client, name: client.get_offsets(name),
    "delete": lambda client, name: client.delete(name),
    "restart": lambda client, name: client.restart(name, only_failed=False),
    "stop": lambda client, name: client.set_state(name, TargetState.stopped),
    "resume": lambda client, name: client.set_state(name, TargetState.running),
    "reset": lambda client, name: client.reset_offsets(name),
}


@pytest.mark.parametrize("call", CALLS)
def test_an_unknown_connector_is_an_error_of_its_own(connect: Connect, call: str) -> None:
    with pytest.raises(UnknownConnector):
        CALLS[call](connect.client, connect.name)


def test_an_unknown_connector_has_no_settings(connect: Connect) -> None:
    assert connect.client.find_config(connect.name) is None


def test_sound_settings_pass_validation(connect: Connect) -> None:
    assert connect.client.validate(CLASS, connect.good_config()).errors() == []


def test_validation_names_the_setting_that_is_missing(connect: Connect) -> None:
    config = {key: value for key, value in connect.good_config().items() if key != "topic.prefix"}
    (refused,) = connect.client.validate(CLASS, config).errors()
    assert refused.key == "topic.prefix"
    assert len(refused.messages) == len(set(refused.messages)) == 1


def test_settings_that_do_not_pass_validation_are_not_stored(connect: Connect) -> None:
    config = {key: value for key, value in connect.good_config().items() if key != "topic.prefix"}
    with pytest.raises(RejectedConfig, match=r"topic\.prefix"):
        connect.client.put_config(connect.name, config)
    assert connect.client.find_config(connect.name) is None


def test_a_connector_class_that_connect_does_not_have_is_rejected_by_name(connect: Connect) -> None:
    config = connect.good_config(connector__class="no.such.Connector")
    with pytest.raises(RejectedConfig, match=r"matches no\.such\.Connector$"):
        connect.client.validate("no.such.Connector", config)
    with pytest.raises(RejectedConfig, match=r"matches no\.such\.Connector$"):
        connect.client.put_config(connect.name, config)


def test_validation_tells_which_settings_there_are(connect: Connect) -> None:
    known = connect.client.validate(CLASS, connect.good_config(poll__intervall__ms="10")).known()
    assert {"connector.class", "tasks.max", "database.hostname", "topic.prefix"} <= known
    assert "poll.intervall.ms" not in known


def test_all_connectors_are_seen_at_once_with_settings_and_status(connect: Connect) -> None:
    connect.apply(connect.good_config())
    seen = connect.client.get_overviews()[connect.name]
    assert seen.config() == connect.good_config()
    assert seen.status == connect.client.get_status(connect.name)


def test_a_paused_connector_keeps_its_task_and_a_stopped_one_does_not(connect: Connect) -> None:
    connect.apply(connect.good_config())
    connect.client.set_state(connect.name, TargetState.paused)
    connect.wait_for(lambda: connect.has_verdict(Verdict.HALTED))
    connect.wait_for(lambda: [task.state for task in connect.client.get_status(connect.name).tasks] == ["PAUSED"])
    connect.stop()
    assert connect.client.get_status(connect.name).tasks == ()
    connect.client.set_state(connect.name, TargetState.running)
    connect.wait_for(lambda: connect.has_verdict(Verdict.RUNNING))


def test_what_somebody_stopped_runs_again_after_an_apply(connect: Connect) -> None:
    connect.apply(connect.good_config())
    connect.stop()
    plan = connect.apply(connect.good_config())
    assert isinstance(plan, Update)
    assert (plan.changes, plan.state_before) == ((), TargetState.stopped)
    assert connect.has_verdict(Verdict.RUNNING)


def test_a_connector_is_created_stopped_and_created_again_without_effect(connect: Connect) -> None:
    assert isinstance(connect.apply(connect.good_config(), TargetState.stopped), Create)
    assert connect.client.get_status(connect.name).tasks == ()
    connect.client.create(connect.name, connect.failing_config(), TargetState.stopped)
    assert connect.client.find_config(connect.name) == connect.good_config()
    assert isinstance(connect.apply(connect.good_config(), TargetState.stopped), Unchanged)


def test_the_whole_connector_is_restarted_though_it_runs(connect: Connect) -> None:
    connect.apply(connect.good_config())
    connect.client.restart(connect.name, only_failed=False)
    connect.wait_for(lambda: connect.has_verdict(Verdict.RUNNING))


def test_offsets_are_changed_and_forgotten_only_while_the_connector_is_stopped(connect: Connect) -> None:
    connect.apply(connect.good_config())
    offset = SourceOffset(partition={"server": connect.name}, offset={"lsn": 1})
    with pytest.raises(NotStopped):
        connect.client.set_offsets(connect.name, [offset])
    with pytest.raises(NotStopped):
        connect.client.reset_offsets(connect.name)
    connect.stop()
    connect.client.set_offsets(connect.name, [offset])
    assert connect.client.get_offsets(connect.name) == (offset,)
    connect.client.reset_offsets(connect.name)
    assert connect.client.get_offsets(connect.name) == ()


def test_a_log_level_is_set_and_shown(connect: Connect) -> None:
    connect.client.set_log_level("io.debezium.contract", "DEBUG")
    connect.wait_for(lambda: connect.log_level("io.debezium.contract") == "DEBUG")
    connect.client.set_log_level("io.debezium.contract", "INFO")
    connect.wait_for(lambda: connect.log_level("io.debezium.contract") == "INFO")


def test_the_plugins_and_the_worker_say_their_versions(connect: Connect) -> None:
    (plugin,) = [each for each in connect.client.get_plugins() if each.plugin_class == CLASS]
    assert (plugin.type, bool(plugin.version)) == ("source", True)
    assert connect.client.get_worker().version.startswith("4.")
