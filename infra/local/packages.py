"""Debian packages that the stack needs: which are missing, and how they get installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from infra.local.errors import StackError

JAVA_PACKAGES = ("openjdk-17-jre-headless", "default-jre-headless")


def java_package() -> str:
    """The Java that this Debian (or Ubuntu) offers: 17 by name, else its default."""
    for name in JAVA_PACKAGES:
        known = subprocess.run(["apt-cache", "show", name], capture_output=True, check=False)
        if known.returncode == 0:
            return name
    return JAVA_PACKAGES[-1]


def install(packages: Sequence[str], *, report: Callable[[str], None]) -> None:
    """Installs Debian packages if we are root; else raises StackError with the command to run."""
    if not packages:
        return
    names = " ".join(packages)
    if shutil.which("apt-get") is None:
        raise StackError(f"These programs are missing, and there is no apt-get to install them: {names}.")
    if os.geteuid() != 0:
        raise StackError(
            f"Debian packages are missing. Install them, then start again:\n  sudo apt-get install -y {names}"
        )
    report(f"Installing Debian packages: {names}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    _apt_get(["update", "-qq"], environment)
    _apt_get(["install", "-y", "-qq", "--no-install-recommends", *packages], environment)
    if "redis-server" in packages:
        _stop_packaged_redis(report)


def _apt_get(arguments: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(["apt-get", *arguments], env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise StackError(f"apt-get {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}".rstrip())


def _stop_packaged_redis(report: Callable[[str], None]) -> None:
    """The package starts a Redis of its own on port 6379. This stack runs its own, so that one is stopped again."""
    if Path("/run/systemd/system").is_dir():
        command = ["systemctl", "disable", "--now", "redis-server"]
    else:
        command = ["service", "redis-server", "stop"]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode == 0:
        report("Stopped the service redis-server that the package brought; the stack runs its own Redis.")
    else:
        report("The package redis-server may have started a Redis on port 6379; the stack does not need it.")
