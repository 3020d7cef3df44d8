"""Connector files: `{"name": ..., "config": {...}}`, the shape that Connect's own REST uses."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from connectors.model import Config


class UnusableFile(Exception):
    """The connector file cannot be read, is not JSON, or does not describe a connector."""


@dataclass(frozen=True, slots=True)
class ConnectorFile:
    """A connector as its file describes it. `config` holds the name too, as Connect stores it."""

    name: str
    connector_class: str
    config: Config


def read_connector_file(path: Path) -> ConnectorFile:
    """The connector that the file describes. Raises UnusableFile with a sentence that says what is wrong where."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_without_repeats)
    except OSError as error:
        raise UnusableFile(f"{path} cannot be read: {error.strerror}.") from error
    except json.JSONDecodeError as error:
        raise UnusableFile(f"{path} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}.") from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise UnusableFile(f"{path} is not JSON in UTF-8.") from error
    except _RepeatedKey as error:
        raise UnusableFile(f'{path} says "{error}" twice; one of them would be lost.') from error
    return _connector(path, document)


def _connector(path: Path, document: Any) -> ConnectorFile:
    if not isinstance(document, dict) or set(document) != {"name", "config"}:
        raise UnusableFile(f'{path} must be an object with exactly "name" and "config".')
    name, settings = document["name"], document["config"]
    if not isinstance(name, str) or not name.strip():
        raise UnusableFile(f'{path}: "name" must be a text that is not empty.')
    if not isinstance(settings, dict):
        raise UnusableFile(f'{path}: "config" must be an object.')
    config = {key: _setting(path, key, value) for key, value in settings.items()}
    if config.setdefault("name", name) != name:
        raise UnusableFile(f'{path}: the name within "config" is not "{name}".')
    if not config.get("connector.class"):
        raise UnusableFile(f'{path}: "config" must say which connector this is, by "connector.class".')
    return ConnectorFile(name=name, connector_class=config["connector.class"], config=config)


def _setting(path: Path, key: str, value: Any) -> str:
    """A setting as Connect stores it: always text."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    raise UnusableFile(f'{path}: the setting "{key}" must be a text, a number, true or false.')


class _RepeatedKey(ValueError):
    """A key of a JSON object occurs twice."""


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _RepeatedKey(key)
        found[key] = value
    return found
