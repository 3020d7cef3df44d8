"""Prometheus, Alertmanager and the blackbox exporter of the embedded stack: the files that each of them reads.

The rules, routes and scrape configuration are those of infra/prometheus and infra/alertmanager. What differs between
installations is put beside them: where the programs listen, who is told, and for tests how soon."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from infra.local.errors import StackError
from infra.local.ports import HOST, Ports
from infra.local.secrets import write_private

FOR_SECONDS_VARIABLE = "CHAT4ALL_ALERT_FOR_SECONDS"
RECEIVERS_VARIABLE = "CHAT4ALL_ALERT_RECEIVERS_FILE"
CERTIFICATES_VARIABLE = "CHAT4ALL_CERTIFICATES_OF"

JOBS: Mapping[str, str] = {
    "ingest_api": "ingest-api",
    "delivery": "delivery",
    "timeline_metrics": "timeline",
    "router_metrics": "router",
    "channels_metrics": "channels",
    "supervise_metrics": "supervise",
    "audit_metrics": "audit",
    "canary_metrics": "canary",
    "postgres_exporter": "postgres",
    "redis_exporter": "redis",
    "node_exporter": "node",
    "connect_jmx": "connect",
    "blackbox_exporter": "blackbox",
    "prometheus": "prometheus",
    "alertmanager": "alertmanager",
}
"""Field of Ports -> the `job` that what listens there is scraped as."""


def prepare_prometheus(root: Path, folder: Path, ports: Ports, environ: Mapping[str, str]) -> None:
    """Writes what Prometheus reads. Targets in `certificates` that others have put there stay. Raises StackError."""
    shortest = _for_seconds(environ)
    files = {
        "prometheus.yml": (root / "infra" / "prometheus" / "prometheus.yml").read_text("utf-8"),
        "targets/programs.yml": _dump(program_targets(ports)),
        "alertmanagers.yml": _dump([{"targets": [f"{HOST}:{ports.alertmanager}"]}]),
        "servers/programs.yml": _dump(server_targets(ports)),
        "certificates/configured.yml": _dump(certificate_targets(environ.get(CERTIFICATES_VARIABLE, ""), ports)),
    }
    for path in sorted((root / "infra" / "prometheus" / "rules").glob("*.yml")):
        text = path.read_text("utf-8")
        files[f"rules/{path.name}"] = text if shortest is None else hasten_rules(text, shortest)
    (folder / "data").mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).parent.mkdir(mode=0o700, exist_ok=True)
        write_private(folder / name, text)


def prepare_alertmanager(root: Path, folder: Path, environ: Mapping[str, str]) -> None:
    """Writes what Alertmanager reads. Raises StackError."""
    text = (root / "infra" / "alertmanager" / "alertmanager.yml").read_text("utf-8")
    receivers = environ.get(RECEIVERS_VARIABLE)
    if receivers:
        text = with_receivers(text, _read_receivers(Path(receivers)))
    shortest = _for_seconds(environ)
    if shortest is not None:
        text = hasten_routes(text, shortest)
    (folder / "data").mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(folder / "alertmanager.yml", text)


def program_targets(ports: Ports) -> list[dict[str, Any]]:
    """One entry of Prometheus' file_sd per program that tells metrics."""
    return [{"targets": [f"{HOST}:{getattr(ports, name)}"], "labels": {"job": job}} for name, job in JOBS.items()]


def server_targets(ports: Ports) -> list[dict[str, Any]]:
    """The same of the servers that tell no metrics themselves, with the prober that connects to them."""
    prober = f"{HOST}:{ports.blackbox_exporter}"
    return [
        {"targets": [f"{HOST}:{getattr(ports, server)}"], "labels": {"server": server, "__prober": prober}}
        for server in ("gateway", "kafka")
    ]


def certificate_targets(names: str, ports: Ports) -> list[dict[str, Any]]:
    """`chat.example:443,mail.example:465` as an entry of file_sd, with the prober that looks at them."""
    chosen = [name.strip() for name in names.split(",") if name.strip()]
    wrong = [name for name in chosen if not re.fullmatch(r"[\w.:\[\]-]+:\d+", name)]
    if wrong:
        raise StackError(f"{CERTIFICATES_VARIABLE}: {wrong[0]!r} is not HOST:PORT, as in chat.example:443.")
    return [{"targets": chosen, "labels": {"__prober": f"{HOST}:{ports.blackbox_exporter}"}}] if chosen else []


def hasten_rules(text: str, seconds: int) -> str:
    """The same rules, none of which waits longer than this before it fires."""
    document = yaml.safe_load(text)
    for group in document["groups"]:
        for rule in group["rules"]:
            if "for" in rule:
                rule["for"] = f"{min(seconds_of(rule['for']), seconds)}s"
    return _dump(document)


def hasten_routes(text: str, seconds: int) -> str:
    """The same routes, none of which waits longer than this before it tells of a new alert."""
    document = yaml.safe_load(text)
    for route in (document["route"], *document["route"]["routes"]):
        for wait in ("group_wait", "group_interval"):
            if wait in route:
                route[wait] = f"{max(1, min(seconds_of(route[wait]), seconds))}s"
    return _dump(document)


def with_receivers(text: str, receivers: list[dict[str, Any]]) -> str:
    """The same routes, to these receivers. Raises StackError if one that is routed to is not among them."""
    document = yaml.safe_load(text)
    named = {str(receiver.get("name")) for receiver in receivers}
    needed = {str(route["receiver"]) for route in (document["route"], *document["route"]["routes"])}
    if needed - named:
        missing = ", ".join(sorted(needed - named))
        raise StackError(f"{RECEIVERS_VARIABLE}: receivers are missing: {missing} (infra/alertmanager has an example).")
    document["receivers"] = receivers
    return _dump(document)


def seconds_of(duration: str) -> int:
    """A duration as Prometheus writes it: `1h30m`."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([smhd])", duration))


def _for_seconds(environ: Mapping[str, str]) -> int | None:
    text = environ.get(FOR_SECONDS_VARIABLE)
    if not text:
        return None
    if not text.isdecimal():
        raise StackError(f"{FOR_SECONDS_VARIABLE} is {text!r}, and has to be a number of seconds.")
    return int(text)


def _read_receivers(path: Path) -> list[dict[str, Any]]:
    try:
        found = yaml.safe_load(path.read_text("utf-8"))["receivers"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise StackError(f"{RECEIVERS_VARIABLE}: {path} has no readable `receivers` ({error}).") from error
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise StackError(f"{RECEIVERS_VARIABLE}: `receivers` in {path} is not a list of receivers.")
    return found


def _dump(document: object) -> str:
    return yaml.safe_dump(document, sort_keys=False, width=120, allow_unicode=True)
