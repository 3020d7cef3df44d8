"""What an operator does by hand: runs `python -m connectors` with what the stack tells its tools."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from infra.local.stack import Stack
from tests.conftest import ROOT


def connectors_command(stack: Stack, tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs it as this tool of the stack (`doctor`, `recover`, `outboxes`)."""
    return subprocess.run(
        [sys.executable, "-m", "connectors", *arguments],
        cwd=ROOT,
        env={**stack.environment_of(tool), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


def declare_outboxes(folder: Path, count: int) -> Path:
    """A file with the committed connector, for so many outboxes."""
    document = json.loads((ROOT / "connectors/configs/outbox.json").read_text())
    path = folder / "outbox.json"
    path.write_text(json.dumps({**document, "outboxes": count}))
    return path
