"""Prometheus' and Alertmanager's own tools agree: configurations are right, each rule fires and is silent where its
cases say so, and each severity reaches its receiver."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.local import packages, watching
from infra.local.errors import StackError
from infra.local.ports import Ports
from tests.alert_cases import ROOT, promtool_test, read_cases, read_rules

ALERTMANAGER = ROOT / "infra" / "alertmanager"
EXAMPLE = ALERTMANAGER / "receivers.example.yml"


@pytest.fixture(scope="module", autouse=True)
def tools() -> None:
    """promtool and amtool come with the programs that the embedded stack runs."""
    packages.install_missing({"promtool": "prometheus", "amtool": "prometheus-alertmanager"}, report=print)


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def prepare(folder: Path, environ: Mapping[str, str] | None = None) -> None:
    watching.prepare_prometheus(ROOT, folder / "prometheus", Ports(), environ or {})
    watching.prepare_alertmanager(ROOT, folder / "alertmanager", environ or {})


def test_every_rule_fires_and_is_silent_where_its_cases_say_so(tmp_path: Path) -> None:
    rules = {rule.name: rule for rule in read_rules()}
    files = []
    for case in read_cases():
        files.append(tmp_path / f"{case.name}.yml")
        files[-1].write_text(yaml.safe_dump(promtool_test(rules[case.name], case)))

    said = run("promtool", "test", "rules", *map(str, files))

    assert said.count("SUCCESS") == len(rules)


def test_a_case_that_is_wrong_is_noticed(tmp_path: Path) -> None:
    rule = next(rule for rule in read_rules() if rule.name == "ConnectDown")
    case = next(case for case in read_cases() if case.name == "ConnectDown")
    document: dict[str, Any] = promtool_test(rule, case)
    first, second = document["tests"]
    first["input_series"], second["input_series"] = second["input_series"], first["input_series"]
    (tmp_path / "swapped.yml").write_text(yaml.safe_dump(document))

    done = subprocess.run(
        ["promtool", "test", "rules", str(tmp_path / "swapped.yml")], capture_output=True, text=True, check=False
    )

    assert done.returncode != 0
    assert (done.stdout + done.stderr).count("expr:") == 2


@pytest.mark.parametrize("seconds", [None, "2"])
def test_what_the_embedded_stack_writes_is_right(tmp_path: Path, seconds: str | None) -> None:
    environ = {watching.CERTIFICATES_VARIABLE: "chat.example:443"}
    prepare(tmp_path, {**environ, **({watching.FOR_SECONDS_VARIABLE: seconds} if seconds else {})})

    said = run("promtool", "check", "config", str(tmp_path / "prometheus" / "prometheus.yml"))
    run("amtool", "check-config", str(tmp_path / "alertmanager" / "alertmanager.yml"))

    assert "12 rule files found" in said
    longest = max(
        watching.seconds_of(rule["for"])
        for path in (tmp_path / "prometheus" / "rules").iterdir()
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
        if "for" in rule
    )
    assert longest == (2 if seconds else 3600)


def test_the_configuration_for_containers_is_right(tmp_path: Path) -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    for service, folder in (("prometheus", tmp_path), ("alertmanager", tmp_path)):
        for volume in compose["services"][service]["volumes"]:
            source, _, target = volume.removesuffix(":ro").partition(":")
            if source.startswith("."):
                place = folder / Path(target).relative_to("/etc/chat4all")
                place.parent.mkdir(parents=True, exist_ok=True)
                place.symlink_to(ROOT / source)

    run("promtool", "check", "config", str(tmp_path / "prometheus.yml"))
    run("amtool", "check-config", str(tmp_path / "alertmanager.yml"))


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        ("alertname=ConnectDown severity=page", "page"),
        ("alertname=DeadLetters severity=ticket", "ticket"),
        ("alertname=ProgramRestarted severity=info", "info"),
        ("alertname=DeadMansSwitch severity=info", "heartbeat"),
        ("alertname=SomebodyElses", "ticket"),
    ],
)
def test_an_alert_reaches_the_receiver_of_its_severity(labels: str, receiver: str) -> None:
    config = f"--config.file={ALERTMANAGER / 'alertmanager.yml'}"

    run("amtool", "config", "routes", "test", config, f"--verify.receivers={receiver}", *labels.split())


def test_every_rule_reaches_the_receiver_of_its_severity(tmp_path: Path) -> None:
    config = yaml.safe_load((ALERTMANAGER / "alertmanager.yml").read_text())
    routed = {route["matchers"][0]: route["receiver"] for route in config["route"]["routes"]}

    assert routed['severity = "page"'] == "page"
    assert config["route"]["receiver"] == "ticket"
    assert {rule.labels["severity"] for rule in read_rules()} == {"page", "ticket", "info"}


def test_inhibitions_name_alerts_that_exist() -> None:
    config = yaml.safe_load((ALERTMANAGER / "alertmanager.yml").read_text())
    names = {rule.name for rule in read_rules()}
    for rule in config["inhibit_rules"]:
        for matcher in (*rule["source_matchers"], *rule["target_matchers"]):
            label, _, pattern = matcher.replace("=~", "=").partition(" = ")
            assert label != "alertname" or set(pattern.strip('"').split("|")) <= names, matcher


def test_receivers_of_ones_own_take_the_place_of_ours(tmp_path: Path) -> None:
    prepare(tmp_path, {watching.RECEIVERS_VARIABLE: str(EXAMPLE)})

    path = tmp_path / "alertmanager" / "alertmanager.yml"
    run("amtool", "check-config", str(path))
    assert yaml.safe_load(path.read_text())["receivers"] == yaml.safe_load(EXAMPLE.read_text())["receivers"]


def test_no_receiver_holds_a_secret() -> None:
    for path in (EXAMPLE, ALERTMANAGER / "alertmanager.yml"):
        text = path.read_text()
        assert "password:" not in text
        assert "_key:" not in text
        assert "credentials:" not in text


def test_receivers_that_lack_one_are_refused_with_its_name(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yml"
    mine.write_text("receivers: [{name: page}, {name: ticket}, {name: info}]\n")

    with pytest.raises(StackError, match="missing: heartbeat"):
        prepare(tmp_path, {watching.RECEIVERS_VARIABLE: str(mine)})


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        (watching.FOR_SECONDS_VARIABLE, "soon", "has to be a number of seconds"),
        (watching.CERTIFICATES_VARIABLE, "chat.example", "is not HOST:PORT"),
        (watching.RECEIVERS_VARIABLE, "/nowhere.yml", "has no readable `receivers`"),
    ],
)
def test_a_setting_that_is_wrong_is_refused_in_a_sentence(tmp_path: Path, variable: str, value: str, said: str) -> None:
    with pytest.raises(StackError, match=said):
        prepare(tmp_path, {variable: value})
