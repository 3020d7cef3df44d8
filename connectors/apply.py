"""Carries out what reconcile.py decides, and waits until the connector runs or it is clear why it does not."""

from __future__ import annotations

from collections.abc import Callable

from connectors.config_file import ConnectorFile
from connectors.connect import ConnectClient, ConnectError, Deadline, RejectedConfig, UnknownConnector
from connectors.model import ConnectorStatus, FieldError, Verdict
from connectors.reconcile import Create, Plan, Unchanged, Update, reconcile

POLL_SECONDS = 0.25
SETTLE_SECONDS = 2.0
"""How long a verdict must stand. After a change Connect goes on showing the old tasks' states for a moment, and a
task of Debezium's that cannot stream says RUNNING before it says FAILED."""


class NotRunning(ConnectError):
    """The connector has its settings, but it or one of its tasks does not run."""


def apply(
    client: ConnectClient,
    file: ConnectorFile,
    deadline: Deadline,
    *,
    on_plan: Callable[[Plan], None],
    on_restart: Callable[[ConnectorStatus], None],
) -> ConnectorStatus:
    """Makes Connect hold the file's settings and returns the status once everything has run for SETTLE_SECONDS.
    What FAILED under settings that are already right is restarted once. `on_plan` and `on_restart` are told what
    is about to be done. Raises ConnectError's subclasses, NotRunning among them."""
    refused = client.validate(file.connector_class, file.config)
    if refused:
        raise RejectedConfig(_refusal(file.name, refused), refused)
    plan = reconcile(file.config, client.find_config(file.name))
    on_plan(plan)
    if isinstance(plan, Create | Update):
        client.put_config(file.name, plan.config)
    status = _settle(client, file.name, deadline)
    if status.verdict() is Verdict.FAILED and isinstance(plan, Unchanged):
        on_restart(status)
        client.restart_failed(file.name)
        status = _settle(client, file.name, deadline)
    if status.verdict() is not Verdict.RUNNING:
        raise NotRunning(_why_not(status))
    return status


def _settle(client: ConnectClient, name: str, deadline: Deadline) -> ConnectorStatus:
    """The status whose verdict (never PENDING) has stood for SETTLE_SECONDS. Raises NotRunning at the deadline."""
    verdict, since = Verdict.PENDING, deadline.clock()
    status: ConnectorStatus | None = None
    while True:
        try:
            status = client.get_status(name)
        except UnknownConnector:
            status = None  # its creation has not gone round yet
        seen = status.verdict() if status else Verdict.PENDING
        if seen is not verdict:
            verdict, since = seen, deadline.clock()
        if status and verdict is not Verdict.PENDING and deadline.clock() - since >= SETTLE_SECONDS:
            return status
        if not deadline.pause(POLL_SECONDS):
            summary = status.summary() if status else "Connect shows no status of it"
            raise NotRunning(f"{name} did not settle within {deadline.seconds:g} s: {summary}.")


def _why_not(status: ConnectorStatus) -> str:
    if status.verdict() is Verdict.HALTED:
        return (
            f"{status.name} was {status.connector.state.lower()} by someone; it goes on after"
            f" PUT /connectors/{status.name}/resume."
        )
    return "\n  ".join([f"{status.name} does not run: {status.summary()}.", *status.failures()])


def _refusal(name: str, refused: list[FieldError]) -> str:
    lines = [f"{field.key}: {message}" for field in refused for message in field.messages]
    return "\n  ".join([f"Connect refuses the settings of {name}:", *lines])
