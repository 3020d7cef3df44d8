"""The declared state: files of connectors, and per environment an overlay that is laid over them by key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from connectors.config_file import ConnectorFile, check_shape, parse_connector
from connectors.documents import SUFFIXES, UnusableFile, read_document
from connectors.outboxes.model import Unsplittable, connector_files
from connectors.schema import DEBEZIUM_POSTGRES

CONFIGS = Path(__file__).parent / "configs"
OVERLAYS = "overlays"

_ALONE = {
    "slot.name": "two readers of one replication slot lose records",
    "topic.prefix": "the second would go on from the offsets of the first",
}
"""Settings in which Debezium's connectors to one database must differ, and why."""


@dataclass(frozen=True, slots=True)
class Declaration:
    """What Connect should hold. `is_whole`: a folder was read, so that what is not in it should not be there either.
    (A file speaks of its own connector alone.)"""

    connectors: tuple[ConnectorFile, ...]
    is_whole: bool


def read_declaration(paths: Sequence[Path], environment: str | None = None) -> Declaration:
    """What the files and folders declare, with the environment's overlay (`overlays/<environment>.yaml` beside each
    file) laid over. Sorted by name. Raises UnusableFile."""
    documents: dict[str, tuple[Path, dict[str, Any]]] = {}
    overlays: dict[Path, Mapping[str, Any]] = {}
    for path in _files(paths):
        document = check_shape(path, read_document(path))
        if environment is not None and path.parent not in overlays:
            overlays[path.parent] = _read_overlay(path.parent / OVERLAYS, environment)
        name = document["name"]
        if name in documents:
            raise UnusableFile(f"{documents[name][0]} and {path} both declare {name}.")
        documents[name] = (path, document)
    _require_known(overlays, documents.keys(), is_whole=any(path.is_dir() for path in paths))
    found: list[ConnectorFile] = []
    several: list[ConnectorFile] = []
    for name, (path, document) in documents.items():
        laid = lay_over(document, overlays.get(path.parent, {}).get(name, {}))
        if laid is not None:
            found.append(parse_connector(path, laid))
            several += _several(path, found[-1], laid.get("outboxes", "1"))
    _require_apart(found)
    connectors = tuple(sorted(several, key=lambda connector: connector.name))
    return Declaration(connectors, is_whole=any(path.is_dir() for path in paths))


def _several(path: Path, connector: ConnectorFile, total: Any) -> list[ConnectorFile]:
    """The connectors that one file declares: as many as there are outboxes."""
    if total == "1":
        return [connector]
    if not isinstance(total, str) or not total.isdigit():
        raise UnusableFile(f'{path}: "outboxes" must be a whole number.')
    try:
        return connector_files(connector, int(total))
    except Unsplittable as error:
        raise UnusableFile(f"{path}: {error}") from error


def lay_over(document: dict[str, Any], overlay: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The document with the overlay's settings in place of its own; a null takes a setting away, and an overlay that
    is null the whole connector."""
    if overlay is None:
        return None
    config = {**document["config"], **overlay.get("config", {})}
    settings = {key: value for key, value in config.items() if value is not None}
    others = {key: overlay[key] for key in ("state", "outboxes") if key in overlay}
    return {**document, "config": settings, **others}


def environments(folder: Path) -> list[str]:
    """The environments that a folder of connector files has overlays for."""
    return sorted(path.stem for path in (folder / OVERLAYS).glob("*") if path.suffix in SUFFIXES)


def _files(paths: Iterable[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(each for each in path.iterdir() if each.suffix in SUFFIXES and each.is_file())
            if not inside:
                raise UnusableFile(f"{path} holds no connector file (*.json, *.yaml).")
            found += inside
        else:
            found.append(path)
    return list(dict.fromkeys(found))


def _read_overlay(folder: Path, environment: str) -> Mapping[str, Any]:
    candidates = [folder / f"{environment}{suffix}" for suffix in SUFFIXES]
    present = [path for path in candidates if path.is_file() and path.parent == folder]
    if not present:
        known = ", ".join(environments(folder.parent)) or "none"
        raise UnusableFile(f"There is no overlay {folder / environment}.yaml; the environments here: {known}.")
    path = present[0]
    document = read_document(path) or {}
    if not isinstance(document, dict) or not all(_is_overlay(each) for each in document.values()):
        raise UnusableFile(
            f'{path} must say per connector what to lay over it, by "config", "state" or "outboxes", or null to leave'
            " it out."
        )
    return document


def _is_overlay(value: Any) -> bool:
    if value is None:
        return True
    return (
        isinstance(value, dict)
        and set(value) <= {"config", "state", "outboxes"}
        and isinstance(value.get("config", {}), dict)
    )


def _require_known(overlays: Mapping[Path, Mapping[str, Any]], names: Iterable[str], *, is_whole: bool) -> None:
    """An overlay for a connector that nobody declares is a mistake, unless only some files were read."""
    if not is_whole:
        return
    for folder, overlay in overlays.items():
        unknown = sorted(overlay.keys() - set(names))
        if unknown:
            raise UnusableFile(f"The overlay in {folder / OVERLAYS} is for {unknown[0]}, which no file declares.")


def _require_apart(connectors: Sequence[ConnectorFile]) -> None:
    seen: dict[tuple[str, ...], str] = {}
    for connector in connectors:
        if connector.connector_class != DEBEZIUM_POSTGRES:
            continue
        database = (connector.config["database.hostname"], connector.config.get("database.port", ""))
        for key, why in _ALONE.items():
            place = (key, connector.config.get(key, ""), *(database if key == "slot.name" else ()))
            if place in seen:
                raise UnusableFile(f"{seen[place]} and {connector.name} have the same {key}: {why}.")
            seen[place] = connector.name
