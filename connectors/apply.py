"""Carries out what reconcile.py decides, and waits until connectors do what they are meant to, or it is clear why they
do not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from connectors.config_file import ConnectorFile, TargetState
from connectors.connect import ConnectClient, ConnectError, Deadline, RejectedConfig, UnknownConnector
from connectors.declared import Declaration
from connectors.model import ConnectorStatus, FieldError, Verdict
from connectors.reconcile import Create, Held, Plan, Unchanged, Undeclared, Update, reconcile_all

POLL_SECONDS = 0.25
SETTLE_SECONDS = 2.0
"""How long a verdict must stand. After a change Connect goes on showing the old tasks' states for a moment, and a
task of Debezium's that cannot stream says RUNNING before it says FAILED."""
OLD_FAILURE_SECONDS = 10.0
"""How long FAILED must stand where it may be what was there before the change."""

_TARGETS = {"PAUSED": TargetState.paused, "STOPPED": TargetState.stopped}


class NotRunning(ConnectError):
    """The connector has its settings, but it or one of its tasks does not do what it is meant to."""


class Overtaken(ConnectError):
    """Somebody else changed the connector at the same time."""


def make_plan(client: ConnectClient, declaration: Declaration) -> tuple[Plan, ...]:
    """What has to be done, decided from what Connect holds now. Raises ConnectError."""
    return reconcile_all(declaration, read_held(client))


def read_held(client: ConnectClient) -> dict[str, Held]:
    """What Connect holds, by the connectors' names. Raises ConnectError."""
    overviews = client.get_overviews()
    return {name: Held(each.config(), _target(each.status)) for name, each in overviews.items()}


def validate(client: ConnectClient, connectors: Iterable[ConnectorFile]) -> dict[str, frozenset[str]]:
    """Has Connect, and each connector's own class, look at the settings. By connector, the settings that its class and
    Connect know. Raises RejectedConfig with all that they refuse, of all connectors."""
    sentences: list[str] = []
    fields: list[FieldError] = []
    known: dict[str, frozenset[str]] = {}
    for connector in connectors:
        validation = client.validate(connector.connector_class, connector.config)
        known[connector.name] = validation.known()
        refused = validation.errors()
        if refused:
            sentences.append(_refusal(connector.name, refused))
            fields += refused
    if sentences:
        raise RejectedConfig("\n".join(sentences), fields)
    return known


def carry_out(client: ConnectClient, plans: Sequence[Plan], *, prune: bool) -> None:
    """Has Connect hold what is planned. Every step replaces something as a whole, so any of them may run twice, and
    beside somebody else's. Raises ConnectError."""
    for plan in plans:
        match plan:
            case Create(connector) if connector.state is TargetState.running:
                client.put_config(connector.name, connector.config)
            case Create(connector):
                client.create(connector.name, connector.config, connector.state)
            case Update(connector, changes, state_before):
                if changes:
                    client.put_config(connector.name, connector.config)
                if state_before is not None:
                    client.set_state(connector.name, connector.state)
            case Undeclared(name) if prune:
                client.delete(name)


def wait_until_settled(
    client: ConnectClient,
    plans: Iterable[Plan],
    deadline: Deadline,
    *,
    on_restart: Callable[[ConnectorStatus], None],
) -> list[ConnectorStatus]:
    """The statuses once every declared connector has done what it is meant to for SETTLE_SECONDS. What FAILED under
    settings that were right already is restarted once; `on_restart` is told before. Raises NotRunning, Overtaken."""
    statuses: list[ConnectorStatus] = []
    for plan in plans:
        if isinstance(plan, Undeclared):
            continue
        connector = plan.connector
        failed_seconds = OLD_FAILURE_SECONDS if isinstance(plan, Update) else SETTLE_SECONDS
        status = _settle(client, connector, deadline, failed_seconds=failed_seconds)
        if status.verdict() is Verdict.FAILED and isinstance(plan, Unchanged):
            on_restart(status)
            client.restart(connector.name, only_failed=True)
            status = _settle(client, connector, deadline, failed_seconds=OLD_FAILURE_SECONDS)
        if status.verdict() is Verdict.FAILED:
            raise NotRunning("\n  ".join([f"{status.name} does not run: {status.summary()}.", *status.failures()]))
        if client.find_config(connector.name) != connector.config:
            raise Overtaken(f"Somebody else changed {connector.name} meanwhile: Connect holds other settings now.")
        statuses.append(status)
    return statuses


def _settle(
    client: ConnectClient, connector: ConnectorFile, deadline: Deadline, *, failed_seconds: float
) -> ConnectorStatus:
    """The status that has been as it is meant to be for SETTLE_SECONDS, or FAILED for `failed_seconds`. Raises
    NotRunning at the deadline."""
    verdict, since = Verdict.PENDING, deadline.clock()
    status: ConnectorStatus | None = None
    while True:
        try:
            status = client.get_status(connector.name)
        except UnknownConnector:
            status = None  # its creation has not gone round yet
        seen = _verdict(status, connector.state) if status else Verdict.PENDING
        if seen is not verdict:
            verdict, since = seen, deadline.clock()
        needed = failed_seconds if verdict is Verdict.FAILED else SETTLE_SECONDS
        if status and verdict is not Verdict.PENDING and deadline.clock() - since >= needed:
            return status
        if not deadline.pause(POLL_SECONDS):
            summary = status.summary() if status else "Connect shows no status of it"
            raise NotRunning(f"{connector.name} did not settle within {deadline.seconds:g} s: {summary}.")


def _verdict(status: ConnectorStatus, target: TargetState) -> Verdict:
    """The status' verdict; PENDING while the connector does not do yet what it was told to."""
    verdict = status.verdict()
    is_as_told = verdict is Verdict.FAILED or _target(status) is target
    return verdict if is_as_told else Verdict.PENDING


def _target(status: ConnectorStatus | None) -> TargetState:
    return _TARGETS.get(status.connector.state, TargetState.running) if status else TargetState.running


def _refusal(name: str, refused: list[FieldError]) -> str:
    lines = [f"{field.key}: {message}" for field in refused for message in field.messages]
    return "\n  ".join([f"Connect refuses the settings of {name}:", *lines])
