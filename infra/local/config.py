"""Where one embedded stack lives: its checkout, its state, its artifacts and its ports."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from infra.local.errors import StackError
from infra.local.ports import Ports, choose_ports, free_ports
from infra.local.secrets import write_private

STATE_VARIABLE = "CHAT4ALL_STATE_DIR"
ARTIFACTS_VARIABLE = "CHAT4ALL_ARTIFACTS_DIR"

# A Unix socket's path has at most 107 characters, and supervisord binds `<path>.<pid>` first.
LONGEST_SOCKET_PATH = 95

# What programs inherit from whoever starts the stack, besides CHAT4ALL_*. (PGPORT and its like would mislead them.)
INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "JAVA_HOME")

UNUSABLE_IN_PATHS = frozenset("\"'\\;#,\n")


@dataclass(frozen=True, slots=True)
class StackConfig:
    """What makes one stack different from another. `environ` is what its programs inherit."""

    root: Path
    state_dir: Path
    artifacts_dir: Path
    ports: Ports = field(default_factory=Ports)
    environ: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_environment(cls, root: Path, environ: Mapping[str, str]) -> StackConfig:
        """The stack of a checkout: `.local/state` and `.local/artifacts` in it, unless CHAT4ALL_STATE_DIR and
        CHAT4ALL_ARTIFACTS_DIR say otherwise. Ports: see choose_ports. Raises StackError."""
        root = root.resolve()
        state_dir = Path(environ.get(STATE_VARIABLE) or root / ".local" / "state").absolute()
        artifacts_dir = Path(environ.get(ARTIFACTS_VARIABLE) or root / ".local" / "artifacts").absolute()
        for path in (root, state_dir, artifacts_dir):
            if UNUSABLE_IN_PATHS & set(str(path)):
                raise StackError(f"The path {path} holds a quote, a comma, `;`, `#` or a backslash; use another.")
        memory = read_memory(state_dir)
        return cls(
            root=root,
            state_dir=state_dir,
            artifacts_dir=artifacts_dir,
            ports=choose_ports(environ, memory.ports if memory else None),
            environ={
                name: value for name, value in environ.items() if name in INHERITED or name.startswith("CHAT4ALL_")
            },
        )

    @classmethod
    def isolated(cls, root: Path, state_dir: Path, more: Mapping[str, str] | None = None) -> StackConfig:
        """A stack for tests: its own state and free ports, the checkout's artifacts. Programs inherit no CHAT4ALL_*
        but those of `more`. Called again with the same folder it gives the same ports."""
        kept = (*INHERITED, ARTIFACTS_VARIABLE)
        environ = {name: value for name, value in os.environ.items() if name in kept}
        config = cls.from_environment(root, {**environ, **(more or {}), STATE_VARIABLE: str(state_dir)})
        return config if read_memory(state_dir) else replace(config, ports=free_ports())

    def as_last_started(self) -> StackConfig:
        """The same stack at the ports where it was started last."""
        memory = read_memory(self.state_dir)
        return replace(self, ports=memory.ports) if memory else self

    @property
    def logs_dir(self) -> Path:
        """Where programs and steps log."""
        return self.state_dir / "logs"

    @property
    def secrets_dir(self) -> Path:
        """Where passwords and the signing key are (0700)."""
        return self.state_dir / "secrets"

    @property
    def supervisor_config(self) -> Path:
        """supervisord's generated configuration (0600)."""
        return self.state_dir / "supervisord.conf"


@dataclass(frozen=True, slots=True)
class Memory:
    """What a state folder remembers of the last start: ports, and supervisord's socket."""

    ports: Ports
    socket: Path


def read_memory(state_dir: Path) -> Memory | None:
    """The memory of a state folder, or None if no stack was started there. Raises StackError if unreadable."""
    path = _memory_file(state_dir)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return Memory(ports=Ports(**document["ports"]), socket=Path(document["socket"]))
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise StackError(f"{path} belongs to another user: be that user, or set {STATE_VARIABLE}.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise StackError(f"{path} cannot be read ({error}); `reset` starts over.") from error


def write_memory(state_dir: Path, ports: Ports) -> Memory:
    """Remembers a start. The socket gets a short path of its own where the state folder's is too long."""
    before = read_memory(state_dir)
    socket = before.socket if before else state_dir / "supervisor.sock"
    if len(str(socket)) > LONGEST_SOCKET_PATH or not socket.parent.is_dir():
        socket = Path(tempfile.mkdtemp(prefix="chat4all-", dir="/tmp")) / "supervisor.sock"
    document = {"ports": asdict(ports), "socket": str(socket)}
    write_private(_memory_file(state_dir), json.dumps(document, indent=2) + "\n")
    return Memory(ports=ports, socket=socket)


def _memory_file(state_dir: Path) -> Path:
    return state_dir / "stack.json"
