"""The walls of the house: import contracts, and the habits that no linter knows."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("schemas", "ingest_api", "stream_apps", "connectors", "infra")


def modules() -> list[str]:
    found = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            if not name.endswith("migrations.env") and ".versions." not in name:
                found.append(name)
    return found


def test_the_import_contracts_hold() -> None:
    result = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    declared = len(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"])
    assert f"Contracts: {declared} kept, 0 broken." in result.stdout


def test_importing_any_module_has_no_effect() -> None:
    """In a bare environment every module imports: nothing is read, connected or started by it."""
    program = "import importlib, sys, threading\nbefore = threading.active_count()\n"
    program += "".join(f"importlib.import_module({name!r})\n" for name in modules())
    program += "assert threading.active_count() == before, threading.enumerate()\n"
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize("name", modules())
def test_every_module_says_what_it_is_for(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} has no docstring"


def test_nothing_polls_the_outbox() -> None:
    """The outbox is written by three SQL functions and, when a slot was lost, by `connectors recover`; it is read by
    logical decoding alone."""
    readers = [
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.suffix in {".py", ".sql"} and re.search(r"(?i)\b(from|join)\s+(public\.)?outbox\b", path.read_text())
    ]
    folder = "ingest_api/migrations/sql"
    assert sorted(readers) == [
        "connectors/recover/log.py",
        f"{folder}/advance_receipts.sql",
        f"{folder}/append_entries.sql",
        f"{folder}/emit_channel_event.sql",
    ]
    for reader in readers:
        assert re.findall(r"(?i)(\w+)\s+from\s+outbox", (ROOT / reader).read_text()) == ["DELETE"]


def test_the_lock_names_no_registry_and_hashes_everything() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    assert "://" not in lock
    requirements = re.findall(r"(?m)^([a-z0-9][\w.-]*)(?:\[[\w, -]+\])?==\S+(.*(?:\n    .*)*)", lock)
    assert len(requirements) > 50
    assert [name for name, rest in requirements if "--hash=sha256:" not in rest] == []
