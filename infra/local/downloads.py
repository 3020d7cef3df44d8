"""The Java archives: copied once by Maven from the pom.xml files into the artifacts folder, again when one changes."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from infra.local.errors import StackError

POMS = {
    "kafka": "infra/kafka/pom.xml",
    "connect": "infra/connect/pom.xml",
    "debezium-plugin": "infra/debezium/pom.xml",
    "jmx": "infra/jmx/pom.xml",
}
"""Folder among the artifacts -> the pom.xml that fills it."""

STAMP = ".pom-sha256"


def missing_artifacts(root: Path, artifacts_dir: Path) -> list[str]:
    """The names in POMS whose folder is not there or was filled from another pom.xml."""
    return [name for name in POMS if _read(artifacts_dir / name / STAMP) != _digest(root / POMS[name])]


def download(root: Path, artifacts_dir: Path, *, report: Callable[[str], None]) -> None:
    """Fills what is missing. Several stacks may share the folder: one downloads, the others wait. Raises StackError."""
    if not missing_artifacts(root, artifacts_dir):
        return
    artifacts_dir.mkdir(parents=True, exist_ok=True)
    lock = os.open(artifacts_dir, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name in missing_artifacts(root, artifacts_dir):
            began = time.monotonic()
            _fill(root / POMS[name], artifacts_dir / name)
            report(f"  {name:<16} downloaded    {time.monotonic() - began:5.1f} s")
    finally:
        os.close(lock)


def _fill(pom: Path, folder: Path) -> None:
    draft = folder.with_name(folder.name + ".new")
    shutil.rmtree(draft, ignore_errors=True)
    command = ["mvn", "-q", "-B", "-Dstyle.color=never", "-f", str(pom), "package", f"-Dartifacts={draft}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise StackError(f"Maven could not download what {pom} names:\n{done.stdout}{done.stderr}".rstrip())
    shutil.rmtree(draft / ".unpacked", ignore_errors=True)
    (draft / STAMP).write_text(_digest(pom), encoding="ascii")
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii")
    except FileNotFoundError:
        return None
