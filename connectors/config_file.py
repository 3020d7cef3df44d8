"""Connector files: `{"name": ..., "config": {...}}`, the shape that Connect's own REST uses, as JSON or as YAML, and
`state` where a connector is not meant to run, `outboxes` where it is the first of several."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from connectors.documents import UnusableFile, read_document
from connectors.model import Config
from connectors.schema import objections


class TargetState(StrEnum):
    """What a connector is meant to do. Paused: its task keeps what it holds (a replication slot). Stopped: it has no
    task."""

    running = "running"
    paused = "paused"
    stopped = "stopped"


@dataclass(frozen=True, slots=True)
class ConnectorFile:
    """A connector as it is declared. `config` holds the name too, as Connect stores it."""

    name: str
    connector_class: str
    config: Config
    state: TargetState = TargetState.running


def read_connector_file(path: Path) -> ConnectorFile:
    """The connector that the file describes. Raises UnusableFile with a sentence that says what is wrong where."""
    return parse_connector(path, read_document(path))


_ALLOWED = {"name", "config", "state", "outboxes"}


def check_shape(path: Path, document: Any) -> dict[str, Any]:
    """The document, if it is one of a connector's: `name`, `config`, maybe `state`, `outboxes`. Raises UnusableFile."""
    if not isinstance(document, dict) or not {"name", "config"} <= set(document) <= _ALLOWED:
        raise UnusableFile(
            f'{path} must be an object with "name" and "config" ("state" if it is not to run, "outboxes" for several).'
        )
    if not isinstance(document["name"], str) or not document["name"].strip():
        raise UnusableFile(f'{path}: "name" must be a text that is not empty.')
    if not isinstance(document["config"], dict):
        raise UnusableFile(f'{path}: "config" must be an object.')
    return document


def parse_connector(path: Path, document: Any) -> ConnectorFile:
    """The connector that a document describes; `path` is named in what is wrong. Raises UnusableFile."""
    document = check_shape(path, document)
    name = document["name"]
    config = {key: _setting(path, key, value) for key, value in document["config"].items()}
    if config.setdefault("name", name) != name:
        raise UnusableFile(f'{path}: the name within "config" is not "{name}".')
    if not config.get("connector.class"):
        raise UnusableFile(f'{path}: "config" must say which connector this is, by "connector.class".')
    wrong = objections(config)
    if wrong:
        raise UnusableFile("\n  ".join([f"{path} does not fit its schema:", *wrong]))
    return ConnectorFile(name, config["connector.class"], config, _state(path, document.get("state", "running")))


def _setting(path: Path, key: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    raise UnusableFile(f'{path}: the setting "{key}" must be a text, a number, true or false.')


def _state(path: Path, value: Any) -> TargetState:
    try:
        return TargetState(value)
    except ValueError as error:
        known = ", ".join(TargetState)
        raise UnusableFile(f'{path}: "state" must be one of {known}.') from error
