"""The stack's passwords: made once, read by nobody else."""

from __future__ import annotations

import stat
from dataclasses import astuple
from pathlib import Path

from infra.local.secrets import ensure_secrets, write_private


def test_passwords_are_made_once_and_kept(tmp_path: Path) -> None:
    first = ensure_secrets(tmp_path / "secrets")

    assert ensure_secrets(tmp_path / "secrets") == first


def test_every_login_has_a_password_of_its_own(tmp_path: Path) -> None:
    passwords = astuple(ensure_secrets(tmp_path / "secrets"))

    assert len(set(passwords)) == len(passwords)
    assert all(len(password) == 48 for password in passwords)


def test_only_their_owner_can_read_them(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    folder.mkdir(mode=0o755)

    ensure_secrets(folder)

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_they_do_not_show_when_printed(tmp_path: Path) -> None:
    passwords = ensure_secrets(tmp_path / "secrets")

    assert passwords.redis not in repr(passwords)


def test_a_private_file_that_was_readable_is_not_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o644)

    write_private(path, "new")

    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("new", 0o600)
