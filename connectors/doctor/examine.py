"""The doctor's round: reads all three servers, also when one of them does not answer, and runs every check."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from aiokafka.errors import KafkaError

from connectors.connect import ConnectClient, ConnectError
from connectors.database import DatabaseUnreachable
from connectors.doctor import connect, kafka, postgres
from connectors.doctor.facts import Facts, PostgresFacts
from connectors.doctor.findings import Finding, Severity, error
from connectors.doctor.read_connect import read_connect
from connectors.doctor.read_kafka import read_kafka
from connectors.doctor.read_postgres import read_postgres
from connectors.sessions import open_session

ROLE = "chat_monitor"
_Server = TypeVar("_Server")


@dataclass(frozen=True, slots=True)
class Report:
    """What was found, worst first, and how many checks there were."""

    findings: tuple[Finding, ...]
    checks: int

    def count(self, severity: Severity) -> int:
        """How many findings are that bad."""
        return sum(finding.problem.severity is severity for finding in self.findings)


def look(
    environ: Mapping[str, str], client: ConnectClient, bootstrap: str, worker_settings: dict[str, str] | None
) -> Facts:
    """What can be known now; a server that does not answer is a fact too."""
    unread: dict[str, str] = {}

    def attempt(name: str, read: Callable[[], _Server]) -> _Server | None:
        try:
            return read()
        except (DatabaseUnreachable, ConnectError, KafkaError, OSError) as problem:
            unread[name] = " ".join(str(problem).split()) or type(problem).__name__
            return None

    with_postgres = attempt("postgres", lambda: _read_postgres(environ))
    with_connect = attempt("connect", lambda: read_connect(client, worker_settings))
    with_kafka = attempt("kafka", lambda: asyncio.run(read_kafka(bootstrap)))
    return Facts(with_postgres, with_connect, with_kafka, unread)


def _read_postgres(environ: Mapping[str, str]) -> PostgresFacts:
    with open_session(environ, user=ROLE, default_transaction_read_only="on", statement_timeout="10000") as session:
        return read_postgres(session)


def examine(facts: Facts) -> Report:
    """Every finding, worst first. Pure."""
    findings = [
        Finding(f"{name}.reachable", error(f"{sentence.rstrip('.')}.", _REMEDIES[name]))
        for name, sentence in facts.unread.items()
    ]
    if facts.postgres:
        findings += [finding for check in postgres.CHECKS for finding in check.run(facts.postgres)]
    findings += [finding for check in (*connect.CHECKS, *kafka.CHECKS) for finding in check.run(facts)]
    findings.sort(key=lambda finding: -finding.problem.severity)
    return Report(tuple(findings), len(_REMEDIES) + len(postgres.CHECKS) + len(connect.CHECKS) + len(kafka.CHECKS))


_REMEDIES = {
    "postgres": "see that it runs, and that CHAT4ALL_DATABASE_HOST, _PORT, _USER and _PASSWORD are right.",
    "connect": "see that it runs, and that --url is right.",
    "kafka": "see that it runs, and that --kafka is right.",
}
