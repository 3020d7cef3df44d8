"""Debian packages that the stack needs: which are missing, and how they get installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from infra.local.errors import StackError

JAVA_PACKAGES = ("openjdk-17-jre-headless", "default-jre-headless")

SERVICES = frozenset(
    {
        "redis-server",
        "prometheus",
        "prometheus-alertmanager",
        "prometheus-blackbox-exporter",
        "prometheus-postgres-exporter",
        "prometheus-redis-exporter",
        "prometheus-node-exporter",
    }
)
"""Packages that bring a service of the same name."""


def java_package() -> str:
    """The Java that this Debian (or Ubuntu) offers: 17 by name, else its default."""
    for name in JAVA_PACKAGES:
        known = subprocess.run(["apt-cache", "show", name], capture_output=True, check=False)
        if known.returncode == 0:
            return name
    return JAVA_PACKAGES[-1]


def install_missing(commands: Mapping[str, str], *, report: Callable[[str], None]) -> None:
    """Installs the packages (command -> package) whose command is not there. Raises StackError as `install` does."""
    install([package for command, package in commands.items() if shutil.which(command) is None], report=report)


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
    for service in set(packages) & SERVICES:
        _stop_service(service, report)


def _apt_get(arguments: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(["apt-get", *arguments], env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise StackError(f"apt-get {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}".rstrip())


def _stop_service(name: str, report: Callable[[str], None]) -> None:
    """The package starts a service of its own, at the server's usual port. This stack runs its own, so that one is
    stopped again, and does not come back with the machine."""
    if Path("/run/systemd/system").is_dir():
        command = ["systemctl", "disable", "--now", name]
    else:
        command = ["service", name, "stop"]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode == 0:
        report(f"Stopped the service {name} that the package brought; the stack runs its own.")
    else:
        report(f"The package {name} may have started a service of its own; the stack does not need it.")
