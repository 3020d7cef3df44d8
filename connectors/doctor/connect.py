"""Checks of Kafka Connect: version, plugin, the worker's settings, and the connectors that it runs."""

from __future__ import annotations

import re
from collections.abc import Iterator

from connectors.doctor.facts import ConnectFacts, Facts
from connectors.doctor.findings import Check, Problem, error, note, warning
from connectors.doctor.postgres import HEARTBEAT, OUTBOX, outboxes
from connectors.doctor.settings import CONNECTOR, WORKER, broken
from connectors.model import Config, Verdict
from connectors.schema import DEBEZIUM_POSTGRES
from connectors.slots import heartbeat_id, slot_name

OLDEST_CONNECT, OLDEST_DEBEZIUM = 3, 3
ROUTER = "io.debezium.transforms.outbox.EventRouter"


def _major(version: str | None) -> int | None:
    found = re.match(r"(\d+)\.", version or "")
    return int(found[1]) if found else None


def _version(facts: Facts) -> Iterator[Problem]:
    if facts.connect and (_major(facts.connect.version) or OLDEST_CONNECT) < OLDEST_CONNECT:
        yield warning(
            f"Kafka Connect is version {facts.connect.version}, which cannot stop connectors and change offsets.",
            "upgrade Kafka Connect to 4 or newer.",
        )


def _plugin(facts: Facts) -> Iterator[Problem]:
    if not facts.connect:
        return
    for plugin in (DEBEZIUM_POSTGRES, ROUTER):
        if plugin not in facts.connect.plugins:
            yield error(
                f"Kafka Connect has no plugin {plugin}.",
                "put Debezium's PostgreSQL connector into the worker's plugin.path, and restart it.",
            )
    version = facts.connect.plugins.get(DEBEZIUM_POSTGRES)
    if (_major(version) or OLDEST_DEBEZIUM) < OLDEST_DEBEZIUM:
        yield warning(
            f"Debezium's PostgreSQL connector is version {version}: slots that were made anew are not noticed.",
            "upgrade it to 3.4 or newer.",
        )


def _worker(facts: Facts) -> Iterator[Problem]:
    if not facts.connect:
        return
    if facts.connect.worker_settings is None:
        yield note(
            "The worker's settings are not known: Connect's REST does not tell them.",
            "give --worker-file, the properties file that the worker was started with.",
        )
    else:
        yield from broken(WORKER, facts.connect.worker_settings, "the worker")


def _ours(facts: ConnectFacts) -> dict[str, Config]:
    return {name: config for name, config in facts.configs.items() if slot_name(config) is not None}


def _settings(facts: Facts) -> Iterator[Problem]:
    for name, config in _ours(facts.connect).items() if facts.connect else ():
        yield from broken(CONNECTOR, config, f"the connector {name}")


def _outboxes(facts: Facts) -> Iterator[Problem]:
    if not facts.connect or not facts.postgres:
        return
    for outbox in outboxes(facts.postgres):
        config = facts.connect.configs.get(outbox.connector)
        apply = "run chat4all-connectors plan, and apply"
        if config is None:
            yield error(f"There is no connector {outbox.connector}: the slot {outbox.slot} is not read.", f"{apply}.")
            continue
        for key in ("slot.name", "publication.name"):
            if config.get(key) != outbox.slot:
                yield error(
                    f"The connector {outbox.connector} has the {key} {config.get(key)}, not {outbox.slot}.", f"{apply}."
                )
        tables = {each.strip() for each in config.get("table.include.list", "").split(",")}
        for table in sorted({OUTBOX, HEARTBEAT} - tables):
            yield error(f"The connector {outbox.connector} does not stream {table} (table.include.list).", f"{apply}.")
        if heartbeat_id(config) not in (None, outbox.heartbeat_id):
            yield warning(
                f"The connector {outbox.connector} beats the heartbeat {heartbeat_id(config)}, which is another's.",
                f"{apply}.",
            )


def _shared_slots(facts: Facts) -> Iterator[Problem]:
    readers: dict[str, list[str]] = {}
    for name, config in _ours(facts.connect).items() if facts.connect else ():
        readers.setdefault(slot_name(config) or "", []).append(name)
    for slot, names in readers.items():
        if len(names) > 1:
            yield error(
                f"The connectors {' and '.join(sorted(names))} have one slot, {slot}: what one reads, the other loses.",
                "give each a slot of its own, or delete one.",
            )


def _running(facts: Facts) -> Iterator[Problem]:
    for name, status in facts.connect.statuses.items() if facts.connect else ():
        verdict = status.verdict()
        if verdict is Verdict.FAILED:
            why = "; ".join(status.failures())
            yield error(f"The connector {name} does not run: {why}.", f"chat4all-connectors restart {name} --failed.")
        elif verdict is Verdict.HALTED:
            yield error(f"Somebody has halted the connector {name}.", f"chat4all-connectors resume {name}.")
        elif verdict is Verdict.PENDING:
            yield warning(f"The connector {name} has not started yet.", f"chat4all-connectors status {name}, later.")


CHECKS: tuple[Check[Facts], ...] = (
    Check("connect.version", _version),
    Check("connect.plugin", _plugin),
    Check("connect.worker-settings", _worker),
    Check("connect.connector-settings", _settings),
    Check("connect.outboxes", _outboxes),
    Check("connect.shared-slot", _shared_slots),
    Check("connect.running", _running),
)
