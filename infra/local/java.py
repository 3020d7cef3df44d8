"""Command lines of the two Java servers, the Kafka broker and Kafka Connect, and the broker's data folder."""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from infra.local.errors import StackError
from infra.local.ports import HOST, Ports
from infra.local.secrets import write_private

OLDEST_JAVA = 17

# A heap that 500 messages/s leave mostly empty; G1 with a short pause goal, because a pause is a late message.
JVM_OPTIONS = (
    "-Xms256m",
    "-Xmx512m",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
    "-XX:-UsePerfData",
    "-Djava.awt.headless=true",
)


def find_java(environ: Mapping[str, str]) -> str | None:
    """The `java` of JAVA_HOME, else of PATH, if it is new enough; else None."""
    home = environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java", path=environ.get("PATH"))
    if java is None or not os.access(java, os.X_OK):
        return None
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(\d+)', said)
    return java if version and int(version[1]) >= OLDEST_JAVA else None


def java_command(java: str, *, root: Path, jars: Path, arguments: list[str], options: Sequence[str] = ()) -> list[str]:
    """A Java server's command line; `jars` is the folder that is its whole class path, `options` are the JVM's."""
    log_settings = root / "infra" / "kafka" / "log4j2.properties"
    logging = f"-Dlog4j2.configurationFile={log_settings}"
    return [java, *JVM_OPTIONS, *options, logging, "-cp", f"{jars}/*", *arguments]


def metrics_agent(*, artifacts_dir: Path, port: int, rules: Path) -> str:
    """The JVM's option that has Prometheus' JMX exporter listen on this machine."""
    return f"-javaagent:{artifacts_dir / 'jmx' / 'jmx_prometheus_javaagent.jar'}={HOST}:{port}:{rules}"


def broker_properties(shared: str, *, ports: Ports, data_dir: Path) -> str:
    """The broker's whole settings: the shared ones, and where this broker listens and keeps its data."""
    local = {
        "listeners": f"PLAINTEXT://{HOST}:{ports.kafka},CONTROLLER://{HOST}:{ports.kafka_controller}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{ports.kafka}",
        "controller.quorum.bootstrap.servers": f"{HOST}:{ports.kafka_controller}",
        "log.dirs": str(data_dir),
    }
    lines = "".join(f"{name}={value}\n" for name, value in local.items())
    return f"{shared}\n# --- This broker (generated) ---\n{lines}"


def prepare_broker(java: str, *, root: Path, jars: Path, folder: Path, ports: Ports) -> None:
    """Writes the broker's settings to `folder`/server.properties and formats `folder`/data, once."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    shared = (root / "infra" / "kafka" / "server.properties").read_text(encoding="utf-8")
    settings = folder / "server.properties"
    write_private(settings, broker_properties(shared, ports=ports, data_dir=folder / "data"))
    if (folder / "data" / "meta.properties").exists():
        return
    shutil.rmtree(folder / "data", ignore_errors=True)
    cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    tool = ["kafka.tools.StorageTool", "format", "--standalone", f"--cluster-id={cluster_id}", "-c", str(settings)]
    command = [java, "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", f"{jars}/*", *tool]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise StackError(f"Kafka's storage could not be formatted:\n{done.stdout}{done.stderr}".rstrip())
