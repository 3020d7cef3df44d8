"""The ports of the stack: their defaults, the variables that move them, and who holds a taken one."""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields

import psutil

from infra.local.errors import StackError

HOST = "127.0.0.1"
OFFSET_VARIABLE = "CHAT4ALL_PORT_OFFSET"

# Below the range from which Linux takes the ports of outgoing connections (32768 and up): a server that is killed
# must find its port free when it comes back.
FREE_PORT_RANGE = range(20_000, 32_000)


@dataclass(frozen=True, slots=True)
class Ports:
    """One TCP port per server, all on 127.0.0.1. The defaults are the design's."""

    gateway: int = 8080
    ingest_api: int = 8000
    delivery: int = 8001
    connect: int = 8083
    kafka: int = 9092
    kafka_controller: int = 9192
    postgres: int = 5433
    redis: int = 6380
    timeline_metrics: int = 9101
    supervise_metrics: int = 9104
    router_metrics: int = 9102
    channels_metrics: int = 9103
    audit_metrics: int = 9105
    canary_metrics: int = 9106
    postgres_exporter: int = 9187
    redis_exporter: int = 9121
    node_exporter: int = 9100
    connect_jmx: int = 9404
    prometheus: int = 9090
    alertmanager: int = 9093
    blackbox_exporter: int = 9115


PORT_NAMES = tuple(field.name for field in fields(Ports))


def variable_of(name: str) -> str:
    """The environment variable that moves this port."""
    return f"CHAT4ALL_{name.upper()}_PORT"


def choose_ports(environ: Mapping[str, str], remembered: Ports | None = None) -> Ports:
    """The ports that the environment asks for. A port it does not name stays where it was (`remembered`), or is the
    default plus CHAT4ALL_PORT_OFFSET. Raises StackError if a value is no port or two are the same."""
    offset_text = environ.get(OFFSET_VARIABLE)
    offset = _number(OFFSET_VARIABLE, offset_text) if offset_text else 0
    keep = remembered if remembered is not None and not offset_text else None
    chosen: dict[str, int] = {}
    for name, default in asdict(keep or Ports()).items():
        text = environ.get(variable_of(name))
        chosen[name] = _number(variable_of(name), text) if text else default + (0 if keep else offset)
    for name, port in chosen.items():
        if not 1 <= port <= 65_535:
            raise StackError(f"{variable_of(name)}: {port} is no port; ports are 1 to 65535.")
        twin = next(other for other, value in chosen.items() if value == port)
        if twin != name:
            raise StackError(f"{variable_of(twin)} and {variable_of(name)} are both {port}; move one.")
    return Ports(**chosen)


def _number(variable: str, text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise StackError(f"{variable} is {text!r}, and has to be a number.") from error


def free_ports() -> Ports:
    """Ports that nothing listens on now, for a stack beside others."""
    candidates = random.sample(FREE_PORT_RANGE, 200)
    free = [port for port in candidates if is_free(port)]
    return Ports(**dict(zip(PORT_NAMES, free, strict=False)))


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of 127.0.0.1 now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind((HOST, port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True


def require_free(ports: Ports, names: Iterable[str]) -> None:
    """Raises StackError naming every one of these ports that is taken, who holds it, and what moves it."""
    taken = [name for name in names if not is_free(getattr(ports, name))]
    if not taken:
        return
    lines = [
        f"  port {getattr(ports, name)} ({name}) is held by {holder_of(getattr(ports, name))};"
        f" {variable_of(name)} moves it"
        for name in taken
    ]
    raise StackError(
        "\n".join(["Nothing was started, because ports are taken:", *lines])
        + f"\n{OFFSET_VARIABLE}=1000 moves all of them by 1000."
    )


def holder_of(port: int) -> str:
    """`process 123 (name)`, or words for not knowing: other users' processes are not visible to everyone."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:
        connections = []
    for connection in connections:
        address = tuple(connection.laddr)
        is_holder = connection.status == psutil.CONN_LISTEN and address[1:] == (port,)
        if is_holder and connection.pid is not None:
            try:
                return f"process {connection.pid} ({psutil.Process(connection.pid).name()})"
            except psutil.NoSuchProcess:
                break
    return "a process that cannot be seen from here"
