"""Reads Kafka Connect's facts over its REST, by GET alone, and the worker's settings from its file."""

from __future__ import annotations

from pathlib import Path

from connectors.connect import ConnectClient
from connectors.doctor.facts import ConnectFacts
from connectors.documents import UnusableFile


def read_connect(client: ConnectClient, worker_settings: dict[str, str] | None) -> ConnectFacts:
    """Connect's facts now. Raises ConnectError."""
    overviews = client.get_overviews()
    return ConnectFacts(
        version=client.get_worker().version,
        plugins={plugin.plugin_class: plugin.version for plugin in client.get_plugins()},
        configs={name: overview.config() for name, overview in overviews.items()},
        statuses={name: overview.status for name, overview in overviews.items() if overview.status},
        worker_settings=worker_settings,
    )


def read_worker_file(path: Path) -> dict[str, str]:
    """The settings of a properties file (java.util.Properties, without its escapes). Raises UnusableFile."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise UnusableFile(f"{path} cannot be read: {getattr(problem, 'strerror', None) or problem}.") from problem
    pairs = (line.strip().partition("=") for line in lines if line.strip() and line.lstrip()[0] not in "#!")
    return {key.strip(): value.strip() for key, _, value in pairs}
