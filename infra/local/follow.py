"""Following log files as they grow, over their rotation."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from io import TextIOWrapper
from pathlib import Path

POLL_SECONDS = 0.2


def follow(files: Mapping[str, Path], say: Callable[[str], None]) -> None:
    """Says every line that is added to these files from now on, with its name where there are several. Never returns;
    KeyboardInterrupt ends it."""
    opened = {name: _open(path) for name, path in files.items()}
    for file in opened.values():
        if file is not None:
            file.seek(0, 2)
    while True:
        for name, path in files.items():
            file = opened[name]
            for line in file or ():
                say((f"{name}: " if len(files) > 1 else "") + line.rstrip("\n"))
            if file is None or _was_rotated(file, path):
                opened[name] = _open(path)
        time.sleep(POLL_SECONDS)


def _open(path: Path) -> TextIOWrapper | None:
    try:
        return path.open(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None


def _was_rotated(file: TextIOWrapper, path: Path) -> bool:
    try:
        return not path.samefile(Path(f"/proc/self/fd/{file.fileno()}"))
    except FileNotFoundError:
        return False
