"""What Kafka Connect says about a connector, as types, and what may be shown of it. Pure; no I/O.

Source of the states and the shapes: the REST API of Kafka Connect (kafka.apache.org, "Kafka Connect User Guide").
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from typing import Any

from pydantic import BaseModel, ConfigDict

Config = Mapping[str, str]
"""A connector's settings as Connect stores them: text to text, the connector's own `name` among them."""

MASK = "********"
_SECRET_KEY = re.compile(r"password|passwd|secret|token|credential|jaas", re.IGNORECASE)
_REFERENCE = re.compile(r"\$\{[^}]*\}")
_PACKAGE = re.compile(r"^(?:[a-z_][\w$]*\.)+(?=[A-Z])")


class Verdict(Enum):
    """What a status comes down to. PENDING: Connect is still at work on it."""

    RUNNING = "running"
    FAILED = "failed"
    HALTED = "halted"
    PENDING = "pending"


class TaskStatus(BaseModel):
    """One task. `state` is RUNNING, FAILED, PAUSED, UNASSIGNED, RESTARTING or DESTROYED; `trace` is the Java stack
    trace of a FAILED one."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: int
    state: str
    worker_id: str
    trace: str | None = None


class ConnectorState(BaseModel):
    """The connector itself, as apart from its tasks. `state` may also be STOPPED."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    state: str
    worker_id: str
    trace: str | None = None


class ConnectorStatus(BaseModel):
    """A connector and its tasks, as `GET /connectors/{name}/status` answers."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str
    connector: ConnectorState
    tasks: tuple[TaskStatus, ...] = ()

    def verdict(self) -> Verdict:
        """RUNNING only if the connector and every one of at least one task run."""
        states = {self.connector.state, *(task.state for task in self.tasks)}
        if "FAILED" in states:
            return Verdict.FAILED
        if self.connector.state in ("PAUSED", "STOPPED"):
            return Verdict.HALTED
        if self.tasks and states == {"RUNNING"}:
            return Verdict.RUNNING
        return Verdict.PENDING

    def failures(self) -> list[str]:
        """One line per FAILED part: which, and the causes that its trace names."""
        parts = [("connector", self.connector.state, self.connector.trace)]
        parts += [(f"task {task.id}", task.state, task.trace) for task in self.tasks]
        return [f"{part}: {causes(trace)}" for part, state, trace in parts if state == "FAILED"]

    def summary(self) -> str:
        """The states in one line, such as `connector RUNNING, task 0 FAILED`."""
        tasks = [f"task {task.id} {task.state}" for task in self.tasks] or ["no task yet"]
        return ", ".join([f"connector {self.connector.state}", *tasks])


class FieldError(BaseModel):
    """What Connect's validation says against one setting."""

    model_config = ConfigDict(frozen=True)

    key: str
    messages: tuple[str, ...]


class Validation(BaseModel):
    """The part of a validation's answer that is read: each setting's errors."""

    class Setting(BaseModel):
        class Value(BaseModel):
            name: str
            errors: tuple[str, ...] = ()

        value: Value

    configs: tuple[Setting, ...]

    def errors(self) -> list[FieldError]:
        """The settings that were refused; a sentence that Connect repeats is given once."""
        values = (setting.value for setting in self.configs)
        return [
            FieldError(key=value.name, messages=tuple(dict.fromkeys(value.errors))) for value in values if value.errors
        ]


def causes(trace: str | None) -> str:
    """The exceptions that a Java stack trace names, outermost first, without frames and packages."""
    found: list[str] = []
    for line in (trace or "").splitlines():
        if line.startswith("\t") or not line.strip():
            continue
        is_new = line.startswith("Caused by: ") or not found
        text = _PACKAGE.sub("", line.removeprefix("Caused by: ")).strip()
        if is_new:
            found.append(text)
        else:
            found[-1] += " " + text
    return "; caused by ".join(dict.fromkeys(found)) or "Connect gives no reason"


def is_secret_key(key: str) -> bool:
    """Whether the setting's name says that its value must not be shown."""
    return _SECRET_KEY.search(key) is not None


def redact(text: str, config: Mapping[str, Any]) -> str:
    """The text without any secret value of this config (Connect quotes whole configs in some of its errors)."""
    for key, value in config.items():
        if is_secret_key(key) and value and not _REFERENCE.fullmatch(str(value)):
            text = text.replace(str(value), MASK)
    return text
