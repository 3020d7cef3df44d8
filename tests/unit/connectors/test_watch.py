"""The process that supervises, against the in-memory Connect: what it does, says and measures."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import httpx
import pytest
from prometheus_client import CollectorRegistry

from connectors.config_file import ConnectorFile, TargetState
from connectors.database import DatabaseUnreachable
from connectors.declared import Declaration
from connectors.slots import DatabaseFacts, Slot
from connectors.supervise.passing_over import EVENT_ROUTER, is_passing_over, passing_over, restored
from connectors.supervise.telemetry import SuperviseMetrics
from connectors.supervise.watch import Chance, Watch
from tests.fakes_connect import FakeConnect, FakeTime

KEY = "transforms.outbox.table.op.invalid.behavior"
CONFIG = {
    "name": "c",
    "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
    "slot.name": "s",
    "heartbeat.interval.ms": "5000",
    "heartbeat.action.query": "insert into cdc_heartbeat (id) values (1) on conflict (id) do nothing",
    "transforms": "other, outbox",
    "transforms.outbox.type": EVENT_ROUTER,
    KEY: "fatal",
}
AWAY = "org.postgresql.util.PSQLException: Connection to db:5432 refused.\n"
INVALID = "java.lang.IllegalStateException: Unexpected update message received null, fail.\n"


@dataclass
class FakeDatabase:
    """PostgreSQL as supervise sees it."""

    facts: DatabaseFacts
    is_leader: bool = True
    is_away: bool = False

    def read(self) -> DatabaseFacts:
        self._require()
        return self.facts

    def try_lead(self) -> bool:
        self._require()
        return self.is_leader

    def _require(self) -> None:
        if self.is_away:
            raise DatabaseUnreachable("PostgreSQL at h:1 as chat_monitor: refused")


@dataclass
class Scene:
    """A Connect with one connector, a database, and a supervise that looks when it is told to."""

    connect: FakeConnect
    database: FakeDatabase
    time: FakeTime = field(default_factory=FakeTime)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    declared: dict[str, str] = field(default_factory=lambda: dict(CONFIG))

    def __post_init__(self) -> None:
        declaration = Declaration((ConnectorFile("c", CONFIG["connector.class"], self.declared),), is_whole=True)
        chance = Chance(clock=self.time.clock, sleep=self.time.sleep, jitter=lambda: 0.0)
        metrics = SuperviseMetrics(self.registry)
        self.watch = Watch([self.connect.client()], declaration, self.database, metrics, chance)

    def look(self, times: int = 1) -> None:
        """Looks once per second."""
        for _ in range(times):
            self.watch.look()
            self.time.now += 1

    def restarts(self) -> int:
        """How many restarts Connect was asked for."""
        return self.connect.calls.count("POST /connectors/c/restart")

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"supervise_{name}", labels)


def slot(confirmed: int = 100, *, wal_status: str = "reserved") -> Slot:
    return Slot("s", True, wal_status, confirmed, lag_bytes=0, held_bytes=7)


def facts(slot_: Slot | None, current: int = 100) -> DatabaseFacts:
    return DatabaseFacts(current, 5, {slot_.name: slot_} if slot_ else {}, {1: 1.5})


@pytest.fixture
def scene(caplog: pytest.LogCaptureFixture) -> Scene:
    caplog.set_level(logging.INFO, logger="connectors.supervise")
    connect = FakeConnect(plugins={CONFIG["connector.class"]: ()})
    connect.client().put("/connectors/c/config", json=CONFIG)
    return Scene(connect, FakeDatabase(facts(slot())))


def test_a_task_that_failed_is_restarted_and_that_it_runs_again_is_told(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.look(3)
    scene.connect.fail("c", AWAY)
    scene.look(6)
    assert scene.restarts() == 1
    assert scene.metric("actions_total", connector="c", action="restart_failed", cause="database-away") == 1
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO", "INFO"]
    assert caplog.messages[0] == "c does not run (database-away)."
    assert caplog.messages[-1].startswith("c runs again, after ")


def test_what_needs_a_person_is_said_once_with_what_to_do(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.database.facts = facts(slot(wal_status="lost"))
    scene.look(60)
    assert scene.restarts() == 0
    (record,) = caplog.records
    assert (record.levelname, "chat4all-connectors recover" in record.getMessage()) == ("ERROR", True)
    assert scene.metric("needs_person", connector="c", cause="slot-lost") == 1
    scene.database.facts = facts(slot())
    scene.look(10)
    assert scene.metric("needs_person", connector="c", cause="slot-lost") == 0


def test_one_that_does_not_lead_looks_on(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.database.is_leader = False
    scene.connect.fail("c", AWAY)
    scene.look(10)
    assert (scene.restarts(), scene.metric("is_leader")) == (0, 0)
    assert scene.metric("connector_running", connector="c") == 0
    scene.database.is_leader = True
    scene.look(3)
    assert (scene.restarts(), scene.metric("is_leader")) == (1, 1)


def test_while_postgres_is_away_nothing_is_done_and_it_is_said_once(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.database.is_away = True
    scene.connect.fail("c", AWAY)
    scene.look(20)
    assert scene.restarts() == 0
    assert len(caplog.records) == 1
    assert (scene.metric("database_up"), scene.metric("is_leader")) == (0, 0)
    scene.database.is_away = False
    scene.look(3)
    assert scene.restarts() == 1


def test_a_connect_that_is_away_or_rebalancing_is_asked_again(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.connect.interruptions = [httpx.ConnectError("refused")] * 40
    scene.look(2)
    assert scene.metric("connect_up") == 0
    assert [message.startswith("Kafka Connect cannot be asked") for message in caplog.messages] == [True]
    scene.connect.interruptions = []
    scene.look()
    assert scene.metric("connect_up") == 1


def test_an_action_that_connect_does_not_do_is_counted_and_tried_again(scene: Scene) -> None:
    scene.look(3)
    scene.connect.fail("c", AWAY)
    scene.look()
    broken = httpx.Response(500, json={"error_code": 500, "message": "Request timed out, password=hunter2"})
    overviews = scene.connect.client().get("/connectors", params={"expand": ["info", "status"]})
    scene.connect.interruptions = [httpx.Response(200, json=overviews.json()), broken]
    scene.look()
    assert scene.metric("failed_actions_total", connector="c") == 1
    scene.look(3)
    assert scene.metric("actions_total", connector="c", action="restart_failed", cause="database-away") == 1


def test_an_invalid_operation_is_passed_over_until_it_is_behind(scene: Scene) -> None:
    scene.look(3)
    scene.connect.failure_of = lambda config: INVALID if config[KEY] == "fatal" else None
    scene.connect.fail("c", INVALID)
    scene.database.facts = facts(slot(100), current=300)
    scene.look(3)
    assert scene.connect.configs["c"] == CONFIG | {KEY: "error"}
    assert scene.metric("different_settings", connector="c") == 1
    scene.connect.failure_of = lambda _: None
    scene.database.facts = facts(slot(400), current=400)
    scene.look(6)
    assert scene.connect.configs["c"] == CONFIG
    assert scene.metric("different_settings", connector="c") == 0
    assert scene.restarts() == 0


def test_what_else_differs_from_what_is_declared_is_left_as_it_is(scene: Scene) -> None:
    held = CONFIG | {"poll.interval.ms": "7", KEY: "error"}
    assert passing_over(held) == held
    assert restored(held, CONFIG) == CONFIG | {"poll.interval.ms": "7"}
    assert is_passing_over(held, CONFIG)
    assert not is_passing_over(CONFIG, CONFIG)
    assert passing_over({"transforms": "x"}) is None
    assert not is_passing_over({}, {})


def test_a_connector_that_somebody_paused_is_left_alone(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.connect.client().put("/connectors/c/pause")
    scene.look(100)
    assert (scene.restarts(), caplog.records) == (0, [])


def test_what_is_not_declared_is_left_alone(scene: Scene) -> None:
    scene.connect.client().put("/connectors/d/config", json=CONFIG | {"name": "d"})
    scene.connect.fail("d", AWAY)
    scene.look(10)
    assert "POST /connectors/d/restart" not in scene.connect.calls


def test_slot_and_heartbeat_are_measured(scene: Scene) -> None:
    scene.look()
    assert scene.metric("slot_held_bytes", connector="c") == 7
    assert scene.metric("heartbeat_age_seconds", connector="c") == 1.5
    assert scene.metric("transaction_id_age") == 5
    assert scene.metric("connector_running", connector="c") == 1


def test_without_a_database_it_acts_alone(scene: Scene) -> None:
    metrics = SuperviseMetrics(CollectorRegistry())
    declaration = Declaration((ConnectorFile("c", "k", CONFIG, TargetState.running),), is_whole=True)
    chance = Chance(clock=scene.time.clock, sleep=scene.time.sleep, jitter=lambda: 0.0)
    watch = Watch([scene.connect.client()], declaration, None, metrics, chance)
    scene.connect.fail("c", AWAY)
    for _ in range(3):
        watch.look()
        scene.time.now += 1
    assert scene.restarts() == 1
