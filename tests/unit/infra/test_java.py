"""The settings and command lines of the Java servers."""

from __future__ import annotations

from pathlib import Path

from infra.local.java import broker_properties, java_command
from infra.local.ports import Ports

ROOT = Path(__file__).resolve().parents[3]


def settings_in(text: str) -> dict[str, str]:
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def test_the_broker_listens_on_this_machine_only() -> None:
    settings = settings_in(broker_properties("", ports=Ports(), data_dir=Path("/data")))

    assert settings["listeners"] == "PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9192"
    assert settings["log.dirs"] == "/data"


def test_what_is_local_is_not_among_the_shared_settings() -> None:
    shared = settings_in((ROOT / "infra" / "kafka" / "server.properties").read_text())
    local = settings_in(broker_properties("", ports=Ports(), data_dir=Path("/data")))
    in_containers = settings_in((ROOT / "infra" / "kafka" / "compose.properties").read_text())

    assert not set(shared) & set(local)
    assert set(local) <= set(in_containers)


def test_topics_are_never_made_by_accident() -> None:
    broker = settings_in((ROOT / "infra" / "kafka" / "server.properties").read_text())
    worker = settings_in((ROOT / "infra" / "connect" / "connect-distributed.properties").read_text())

    assert broker["auto.create.topics.enable"] == "false"
    assert worker["topic.creation.enable"] == "false"


def test_a_server_s_class_path_is_its_own_folder() -> None:
    command = java_command("java", root=ROOT, jars=Path("/jars/kafka"), arguments=["kafka.Kafka", "x"])

    assert command[command.index("-cp") + 1 :] == ["/jars/kafka/*", "kafka.Kafka", "x"]
