"""What a stack is made of, as data: programs that are kept running, and steps that run to their end between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from infra.local import postgres
from infra.local.config import StackConfig
from infra.local.secrets import Secrets

STACK_MARK = "CHAT4ALL_STACK"
"""Variable that every process of a stack carries: the stack's state folder."""


@dataclass(frozen=True, slots=True)
class Site:
    """What commands are made from: one stack, its passwords, and what was found on this machine for it."""

    config: StackConfig
    secrets: Secrets
    account: postgres.Account
    java: str


@dataclass(frozen=True, slots=True)
class Program:
    """A process that supervisord keeps. `port` names its field of Ports; `needs` names programs and steps; `package` is
    the Debian package that it comes from, where that is installed for it alone. One that `only_watches` is started when
    everything else is up, and what is wrong with it stops nothing."""

    name: str
    port: str
    command: Callable[[Site], list[str]]
    environment: Callable[[Site], dict[str, str]]
    is_ready: Callable[[Site], bool]
    needs: tuple[str, ...] = ()
    more_ports: tuple[str, ...] = ()
    prepare: Callable[[Site], None] | None = None
    start_seconds: float = 60.0
    stop_signal: str = "TERM"
    stop_seconds: int = 15
    stops_as_group: bool = True
    package: str | None = None
    only_watches: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """A command that runs to its end between programs, and may be repeated. `inputs` are the files, relative to the
    root, whose change makes a repetition worthwhile."""

    name: str
    command: Callable[[Site], list[str]]
    environment: Callable[[Site], dict[str, str]]
    needs: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    timeout_seconds: float = 90.0


def mark(site: Site) -> dict[str, str]:
    """What every process of the stack is told, at least."""
    return {STACK_MARK: str(site.config.state_dir)}
