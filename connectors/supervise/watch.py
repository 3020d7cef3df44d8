"""Looks at the declared connectors, has decision.py decide, does it, and tells. Decides nothing."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import httpx

from connectors.config_file import ConnectorFile
from connectors.connect import ConnectClient, ConnectError, Deadline
from connectors.database import DatabaseUnreachable
from connectors.declared import Declaration
from connectors.model import Config, ConnectorStatus, Overview, Verdict, redact
from connectors.reconcile import differences
from connectors.slots import DatabaseFacts, heartbeat_id, heartbeat_seconds, slot_name
from connectors.supervise.causes import Cause
from connectors.supervise.decision import Action, Decision, Memory, Sight, decide
from connectors.supervise.passing_over import is_passing_over, passing_over, restored
from connectors.supervise.telemetry import SuperviseMetrics

logger = logging.getLogger("connectors.supervise")

REQUEST_SECONDS = 5.0
"""How long one look waits for a Connect that is starting or rebalancing; the next look asks again."""


@dataclass(frozen=True, slots=True)
class Chance:
    """Time and randomness: seconds that only grow, sleep, and a number between 0 and 1."""

    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    jitter: Callable[[], float] = random.random


class Lookout(Protocol):
    """PostgreSQL as it is looked at: database.Database, or a double of it. Both raise DatabaseUnreachable."""

    def read(self) -> DatabaseFacts:
        """What there is now."""

    def try_lead(self) -> bool:
        """Whether this process is the one that acts."""


class Watch:
    """Keeps the declared connectors running. Without a database it knows neither slots nor heartbeats, and takes
    itself for the only one."""

    def __init__(
        self,
        workers: Sequence[httpx.Client],
        declaration: Declaration,
        database: Lookout | None,
        metrics: SuperviseMetrics,
        chance: Chance = Chance(),
    ) -> None:
        self._workers = workers
        self._declaration = declaration
        self._database = database
        self._metrics = metrics
        self._clock = chance.clock
        self._sleep = chance.sleep
        self._jitter = chance.jitter
        self._memories: dict[str, Memory] = {}
        self._told: dict[str, tuple[Cause | None, str | None]] = {}
        self._said: dict[str, str | None] = {}
        self._failed_at: dict[str, float] = {}

    def run(self, stop: threading.Event, *, interval_seconds: float) -> None:
        """Looks once per interval until it is told to stop."""
        while not stop.is_set():
            self.look()
            stop.wait(interval_seconds)

    def look(self) -> None:
        """One look at everything, and what follows from it."""
        facts, is_leader = self._ask_database()
        client = ConnectClient(self._workers, Deadline(REQUEST_SECONDS, clock=self._clock, sleep=self._sleep))
        try:
            overviews = client.get_overviews()
        except ConnectError as error:
            self._metrics.connect_up.set(0)
            self._say_once("connect", f"Kafka Connect cannot be asked; nothing can be done until it answers: {error}")
            return
        self._metrics.connect_up.set(1)
        self._say_once("connect", None)
        self._metrics.last_look.set_to_current_time()
        for connector in self._declaration.connectors:
            overview = overviews.get(connector.name)
            if overview is not None and overview.status is None:
                continue  # it was made a moment ago
            sight = make_sight(connector, overview, facts)
            self._measure(connector, overview, sight)
            if is_leader:
                self._follow(client, connector, overview, sight)
            else:
                self._memories.pop(connector.name, None)

    def _ask_database(self) -> tuple[DatabaseFacts | None, bool]:
        """What PostgreSQL shows, and whether this process leads. While PostgreSQL is away nobody does: there is
        nothing that a connector could do without it."""
        if self._database is None:
            self._metrics.is_leader.set(1)
            return None, True
        try:
            is_leader = self._database.try_lead()
            facts = self._database.read()
        except DatabaseUnreachable as error:
            self._metrics.database_up.set(0)
            self._metrics.is_leader.set(0)
            self._say_once("database", f"Nothing is done until PostgreSQL answers: {error}")
            return None, False
        self._metrics.database_up.set(1)
        self._metrics.transaction_id_age.set(facts.transaction_id_age)
        self._metrics.is_leader.set(is_leader)
        self._say_once("database", None)
        self._say_once("leader", None if is_leader else "Another supervise acts; this one looks on.")
        return facts, is_leader

    def _follow(self, client: ConnectClient, connector: ConnectorFile, overview: Overview | None, sight: Sight) -> None:
        memory = self._memories.get(connector.name, Memory())
        decision = decide(sight, memory, now=self._clock(), jitter=self._jitter())
        self._memories[connector.name] = decision.memory
        held = overview.config() if overview else {}
        self._tell(connector, decision, held, sight.status)
        if decision.action is None:
            return
        cause = str(decision.cause)
        extra = {"connector": connector.name, "action": decision.action.name.lower(), "cause": cause}
        logger.info("%s: %s (%s).", connector.name, decision.action.value, cause, extra=extra)
        try:
            self._act(client, connector, decision.action, held)
        except ConnectError as error:
            self._metrics.failed_actions_total.labels(connector.name).inc()
            logger.warning("%s: that could not be done: %s", connector.name, redact(str(error), held), extra=extra)
        else:
            self._metrics.actions_total.labels(connector.name, decision.action.name.lower(), cause).inc()

    def _act(self, client: ConnectClient, connector: ConnectorFile, action: Action, held: Config) -> None:
        match action:
            case Action.RESTART_FAILED:
                client.restart(connector.name, only_failed=True)
            case Action.RESTART_ALL:
                client.restart(connector.name, only_failed=False)
            case Action.PASS_OVER:
                settings = passing_over(held)
                if settings is None:
                    client.restart(connector.name, only_failed=True)
                else:
                    client.put_config(connector.name, settings)
            case Action.RESTORE:
                client.put_config(connector.name, restored(held, connector.config))

    def _tell(self, connector: ConnectorFile, decision: Decision, held: Config, status: ConnectorStatus | None) -> None:
        """A line when the cause changes or a person is needed, and one when all is well again."""
        name, cause = connector.name, decision.cause
        before = self._told.get(name, (None, None))
        if (cause, decision.advice) == before:
            return
        self._told[name] = (cause, decision.advice)
        if before[0] is not None:
            self._metrics.needs_person.labels(name, before[0]).set(0)
        if cause is None:
            halted = status is not None and status.verdict() is Verdict.HALTED
            seconds = self._clock() - self._failed_at.pop(name, self._clock())
            what = "is halted by someone, and left alone" if halted else f"runs again, after {seconds:.1f} s"
            logger.info("%s %s.", name, what, extra={"connector": name, "seconds": round(seconds, 1)})
            return
        self._failed_at.setdefault(name, self._clock())
        extra = {"connector": name, "cause": str(cause), "detail": redact(decision.detail, held)}
        if decision.advice is None:
            logger.warning("%s does not run (%s).", name, cause, extra=extra)
        else:
            self._metrics.needs_person.labels(name, cause).set(1)
            logger.error("%s needs a person: %s.", name, decision.advice, extra=extra)

    def _measure(self, connector: ConnectorFile, overview: Overview | None, sight: Sight) -> None:
        name, metrics = connector.name, self._metrics
        is_running = sight.status is not None and sight.status.verdict() is Verdict.RUNNING
        metrics.connector_running.labels(name).set(is_running)
        held = overview.config() if overview else {}
        metrics.different_settings.labels(name).set(len(differences(before=held, after=connector.config)))
        if sight.slot is not None:
            metrics.slot_lag_bytes.labels(name).set(sight.slot.lag_bytes)
            metrics.slot_held_bytes.labels(name).set(sight.slot.held_bytes)
        if sight.heartbeat_age is not None:
            metrics.heartbeat_age_seconds.labels(name).set(sight.heartbeat_age)

    def _say_once(self, subject: str, sentence: str | None) -> None:
        """Logs a sentence about something when it begins to hold, and that it is over when it is."""
        before = self._said.get(subject)
        self._said[subject] = sentence
        if sentence is not None and before is None:
            logger.warning("%s", sentence)
        elif sentence is None and before is not None:
            logger.info("That is over: %s", before)


def make_sight(connector: ConnectorFile, overview: Overview | None, facts: DatabaseFacts | None) -> Sight:
    """What is seen of a connector, put together from Connect and PostgreSQL."""
    held = overview.config() if overview else {}
    name, beat = slot_name(held), heartbeat_id(held)
    return Sight(
        status=overview.status if overview else None,
        is_database_seen=facts is not None,
        slot_name=name,
        slot=facts.slots.get(name) if facts and name else None,
        current_lsn=facts.current_lsn if facts else 0,
        heartbeat_age=facts.heartbeat_ages.get(beat) if facts and beat is not None else None,
        heartbeat_seconds=heartbeat_seconds(held),
        is_passing_over=is_passing_over(held, connector.config),
    )
