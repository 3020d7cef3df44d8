"""The stack's own passwords: made at its first start, kept in files that only their owner reads."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass, fields
from pathlib import Path

PASSWORD_BYTES = 24


@dataclass(frozen=True, slots=True, repr=False)
class Secrets:
    """One password (hexadecimal text) per login, and what delivery seals its cursors with."""

    database_owner: str
    database_api: str
    database_cdc: str
    database_reader: str
    database_monitor: str
    database_recovery: str
    database_channels: str
    redis: str
    redis_limiter: str
    redis_exporter: str
    cursor_secret: str
    canary_password: str


def ensure_secrets(folder: Path) -> Secrets:
    """The passwords in this folder (0700, files 0600); those that are missing are made."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    values: dict[str, str] = {}
    for field in fields(Secrets):
        path = folder / field.name
        if not path.exists():
            write_private(path, secrets.token_hex(PASSWORD_BYTES) + "\n")
        values[field.name] = path.read_text(encoding="ascii").strip()
    return Secrets(**values)


def write_private(path: Path, text: str) -> None:
    """Writes a file that only its owner can read (0600), whole or not at all."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    draft.replace(path)
