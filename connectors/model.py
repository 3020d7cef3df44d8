"""What Kafka Connect says about a connector, as types, and what may be shown of it. Pure; no I/O.

Source of the states and the shapes: the REST API of Kafka Connect (kafka.apache.org, "Kafka Connect User Guide").
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

Config = Mapping[str, str]
"""A connector's settings as Connect stores them: text to text, the connector's own `name` among them."""

MASK = "********"
_SECRET_NAME = r"(?:password|passwd|passphrase|secret|token|credential|jaas|keystore\.key|private\.?key|api\.?key)"  # noqa: S105 - names, not secrets
_SECRET_KEY = re.compile(_SECRET_NAME, re.IGNORECASE)
_SECRET_PAIR = re.compile(rf"([\w.-]*{_SECRET_NAME}[\w.-]*=)(?!\$\{{)[^\s,;}}&]+", re.IGNORECASE)
_REFERENCE = re.compile(r"\$\{[^}:]+:[^}]*\}")
_LOGIN_IN_ADDRESS = re.compile(r"(?<=://)[^/@\s:]*:[^/@\s]+(?=@)|(?<=[?&;]password=)[^&;\s]+", re.IGNORECASE)
_PACKAGE = re.compile(r"^(?:[a-z_][\w$]*\.)+(?=[A-Z])")


def without_nulls(config: Mapping[str, str | None]) -> dict[str, str]:
    """The settings that have a value."""
    return {key: value for key, value in config.items() if value is not None}


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

    def is_told(self, state: str) -> bool:
        """Whether the connector has come to this state, RUNNING, PAUSED or STOPPED; a stopped one has no tasks."""
        return self.connector.state == state and not (state == "STOPPED" and self.tasks)

    def failures(self) -> list[str]:
        """One line per FAILED part: which, and the causes that its trace names."""
        parts = [("connector", self.connector.state, self.connector.trace)]
        parts += [(f"task {task.id}", task.state, task.trace) for task in self.tasks]
        return [f"{part}: {causes(trace)}" for part, state, trace in parts if state == "FAILED"]

    def summary(self) -> str:
        """The states in one line, such as `connector RUNNING, task 0 FAILED`."""
        tasks = [f"task {task.id} {task.state}" for task in self.tasks] or ["no task yet"]
        return ", ".join([f"connector {self.connector.state}", *tasks])


class Overview(BaseModel):
    """A connector as `GET /connectors?expand=info&expand=status` shows it; without a status when it was made a moment
    ago."""

    class Info(BaseModel):
        config: dict[str, str | None]

    info: Info
    status: ConnectorStatus | None = None

    def config(self) -> Config:
        """The settings that Connect holds. (A null is how Connect stores a setting that is not set.)"""
        return without_nulls(self.info.config)


class Plugin(BaseModel):
    """Something that Connect found in its plugin.path. `type`: source, sink, converter, transformation, predicate…"""

    model_config = ConfigDict(populate_by_name=True, frozen=True)

    plugin_class: str = Field(alias="class")
    type: str
    version: str | None = None


class Worker(BaseModel):
    """What a worker says of itself at `GET /`."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    version: str
    commit: str = ""
    kafka_cluster_id: str = ""


class SourceOffset(BaseModel):
    """One entry of `GET /connectors/{name}/offsets`: a partition of the source, and how far it was read. Both are
    whatever the connector makes them."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    partition: dict[str, Any]
    offset: dict[str, Any] | None


class Offsets(BaseModel):
    """The committed offsets of a connector."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    offsets: tuple[SourceOffset, ...]


class LogLevel(BaseModel):
    """A logger of a worker. Java's own names: ERROR, WARN, INFO, DEBUG, TRACE."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    level: str | None


class FieldError(BaseModel):
    """What Connect's validation says against one setting."""

    model_config = ConfigDict(frozen=True)

    key: str
    messages: tuple[str, ...]


class Validation(BaseModel):
    """What Connect's validation says: each setting that it knows or was given, with errors."""

    class Setting(BaseModel):
        class Definition(BaseModel):
            name: str

        class Value(BaseModel):
            name: str
            errors: tuple[str, ...] = ()

        definition: Definition | None = None
        value: Value

    configs: tuple[Setting, ...]

    def errors(self) -> list[FieldError]:
        """The settings that were refused; a sentence that Connect repeats is given once."""
        values = (setting.value for setting in self.configs)
        return [
            FieldError(key=value.name, messages=tuple(dict.fromkeys(value.errors))) for value in values if value.errors
        ]

    def known(self) -> frozenset[str]:
        """The settings that the connector, or Connect itself, defines."""
        return frozenset(setting.definition.name for setting in self.configs if setting.definition)


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


def is_reference(value: str) -> bool:
    """Whether the whole value is a reference such as ${env:NAME}, which Connect resolves where it runs."""
    return _REFERENCE.fullmatch(value) is not None


def holds_secret(key: str, value: str) -> bool:
    """Whether the setting has a secret in it, rather than a reference to one."""
    if is_secret_key(key):
        return bool(value) and not is_reference(value)
    return any(not is_reference(found.rpartition(":")[2]) for found in _LOGIN_IN_ADDRESS.findall(_plain(value)))


def mask(key: str, value: str) -> str:
    """The value as it may be shown: references stay, secrets do not."""
    if is_secret_key(key):
        return value if is_reference(value) or not value else MASK
    return _LOGIN_IN_ADDRESS.sub(MASK, value) if holds_secret(key, value) else value


def masked(config: Config) -> dict[str, str]:
    """The settings as they may be shown, sorted by key."""
    return {key: mask(key, config[key]) for key in sorted(config)}


def redact(text: str, config: Mapping[str, Any] | None = None) -> str:
    """The text without the secrets of this config, of settings that it quotes (Connect quotes whole configs in some of
    its errors), and of addresses."""
    for key, value in (config or {}).items():
        if is_secret_key(key) and value and not is_reference(str(value)):
            text = text.replace(str(value), MASK)
    return _LOGIN_IN_ADDRESS.sub(MASK, _SECRET_PAIR.sub(rf"\1{MASK}", text))


def _plain(value: str) -> str:
    """The value with its references shortened, so that their own colons mean nothing."""
    return _REFERENCE.sub("${a:reference}", value)
