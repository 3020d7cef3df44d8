"""Which request goes where, made from the OpenAPI documents of the programs behind the gateway. Pure."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

INTERNAL = frozenset({"/healthz", "/readyz", "/metrics"})
"""Operators' addresses: each program answers them on its own port, the gateway does not."""

PAGES = ("/", "/console/{name}")
"""The console's files: delivery serves them, and OpenAPI does not describe them."""

PROGRAMS = ("ingest_api", "delivery")


@dataclass(frozen=True, slots=True)
class Operation:
    """What OpenAPI calls one: a method and a path like `/v1/conversations/{conversation_id}`."""

    program: str
    method: str
    path: str


def operations_of(program: str, document: Mapping[str, Any]) -> list[Operation]:
    """The operations that a program's OpenAPI document describes and that are for clients, in its order."""
    return [
        Operation(program, method.upper(), path)
        for path, methods in document["paths"].items()
        if path not in INTERNAL
        for method in methods
    ]


def render(operations: Iterable[Operation]) -> str:
    """The text of routes.caddyfile. Raises ValueError if two programs answer the same request."""
    pages = [Operation("delivery", "GET", page) for page in PAGES]
    paths: dict[tuple[str, str], list[str]] = defaultdict(list)
    methods: dict[str, list[str]] = defaultdict(list)
    for operation in (*operations, *pages):
        pattern = pattern_of(operation.path)
        if operation.method in methods[pattern]:
            raise ValueError(f"{operation.method} {operation.path} is described twice: say which program answers it.")
        methods[pattern].append(operation.method)
        paths[operation.program, operation.method].append(pattern)
    alike: dict[str, list[str]] = defaultdict(list)
    for pattern, allowed in methods.items():
        alike[", ".join(sorted(allowed))].append(pattern)
    blocks = [_route(program, method, found) for (program, method), found in paths.items()]
    blocks += [_refusal(allowed, found) for allowed, found in alike.items()]
    return (
        "# Made from the OpenAPI documents of a running system: python -m infra.caddy (see its --help).\n"
        "# What is not named here is answered 404.\n\n" + "\n\n".join(blocks) + "\n"
    )


def pattern_of(path: str) -> str:
    """OpenAPI's path as Caddy's matcher takes it: each parameter is one segment that is not empty. (A `*` at the end
    would match any number of segments.)"""
    return re.sub(r"\{[^/{}]+\}", "*[^/]", path)


def _route(program: str, method: str, patterns: list[str]) -> str:
    name = f"@{program}_{method.lower()}"
    return f"{_matcher(name, patterns, method)}\nhandle {name} {{\n\timport to_{program}\n}}"


def _refusal(allowed: str, patterns: list[str]) -> str:
    name = f"@only_{allowed.lower().replace(', ', '_')}"
    return f'{_matcher(name, patterns)}\nhandle {name} {{\n\theader Allow "{allowed}"\n\terror 405\n}}'


def _matcher(name: str, patterns: list[str], method: str | None = None) -> str:
    lines = [f"\tmethod {method}"] if method else []
    lines += [f"\tpath {pattern}" for pattern in patterns]
    return "\n".join([f"{name} {{", *lines, "}"])
