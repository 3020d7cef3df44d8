"""An in-memory double of Kafka Connect's REST, for httpx.MockTransport. tests/contract holds it to the real one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import httpx

from connectors.model import Config

URL = "http://connect.test"
WORKER = "connect.test:8083"
STARTING = httpx.Response(404, html="<html><title>Error 404 Not Found</title></html>")
REBALANCING = httpx.Response(409, json={"error_code": 409, "message": "Cannot complete request: rebalance"})


@dataclass
class FakeConnect:
    """`plugins`: the settings that each known connector class requires. `failure_of`: the trace with which the task
    of a connector with this config fails, None when it runs. `status_lag`: how many times after a change `status`
    still answers as before it. `interruptions` come before the next answers. `calls`: what was asked."""

    plugins: dict[str, tuple[str, ...]]
    failure_of: Callable[[Config], str | None] = lambda _: None
    status_lag: int = 0
    interruptions: list[httpx.Response | Exception] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    configs: dict[str, dict[str, str]] = field(default_factory=dict)
    halted: set[str] = field(default_factory=set)
    _status: dict[str, dict[str, Any]] = field(default_factory=dict)
    _lagging: dict[str, tuple[int, dict[str, Any] | None]] = field(default_factory=dict)

    def client(self) -> httpx.Client:
        """An HTTP client that talks to this double."""
        return httpx.Client(base_url=URL, transport=httpx.MockTransport(self._answer))

    def fail(self, name: str, trace: str) -> None:
        """The connector's task fails now."""
        self._status[name]["tasks"][0] |= {"state": "FAILED", "trace": trace}

    def _answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.raw_path.decode().partition("?")[0]
        self.calls.append(f"{request.method} {path}")
        if self.interruptions:
            interruption = self.interruptions.pop(0)
            if isinstance(interruption, Exception):
                raise interruption
            return interruption
        match [request.method, *(unquote(part) for part in path.strip("/").split("/"))]:
            case ["GET", "connectors"]:
                return httpx.Response(200, json=list(self.configs))
            case ["PUT", "connector-plugins", _, "config", "validate"]:
                return self._validate(json.loads(request.content))
            case ["PUT", "connectors", name, "config"]:
                return self._put(name, json.loads(request.content))
            case [_, "connectors", name, *rest] if name in self.configs:
                return self._answer_about(name, [request.method, *rest], request.url.params)
            case _:
                return _error(404, f"Not found: {path}")

    def _answer_about(self, name: str, call: list[str], query: httpx.QueryParams) -> httpx.Response:
        match call:
            case ["GET", "config"]:
                return httpx.Response(200, json=self.configs[name])
            case ["GET", "status"]:
                return self._show(name)
            case ["POST", "restart"]:
                return self._restart(name, query)
            case ["DELETE"]:
                del self.configs[name], self._status[name]
                return httpx.Response(204)
            case _:
                return _error(405, "HTTP 405 Method Not Allowed")

    def _errors(self, config: dict[str, str]) -> dict[str, list[str]]:
        required = self.plugins[config["connector.class"]]
        return {key: [f"The '{key}' value is invalid: A value is required"] for key in required if key not in config}

    def _validate(self, config: dict[str, str]) -> httpx.Response:
        if config["connector.class"] not in self.plugins:
            return _error(500, f"x.BadRequestException: {_no_class(config)}")
        errors = self._errors(config)
        settings = [{"value": {"name": k, "errors": errors.get(k, [])}} for k in sorted(config.keys() | errors)]
        return httpx.Response(200, json={"error_count": len(errors), "configs": settings})

    def _put(self, name: str, config: dict[str, str]) -> httpx.Response:
        if config["connector.class"] not in self.plugins:
            return _error(400, f"x.ConnectException: {_no_class(config)}")
        if errors := self._errors(config):
            sentences = [sentence for each in errors.values() for sentence in each]
            return _error(400, "\n".join(["Connector configuration is invalid", *sentences]))
        is_new = name not in self.configs
        self._lagging[name] = (self.status_lag, self._status.get(name))
        self.configs[name] = {**config, "name": name}
        self._status[name] = self._started(name)
        return httpx.Response(201 if is_new else 200, json={"name": name, "config": self.configs[name]})

    def _started(self, name: str) -> dict[str, Any]:
        trace = self.failure_of(self.configs[name])
        task = {"id": 0, "state": "FAILED" if trace else "RUNNING", "worker_id": WORKER}
        return {
            "name": name,
            "connector": {"state": "PAUSED" if name in self.halted else "RUNNING", "worker_id": WORKER},
            "tasks": [task | ({"trace": trace} if trace else {})],
            "type": "source",
        }

    def _show(self, name: str) -> httpx.Response:
        left, before = self._lagging.get(name, (0, None))
        if left:
            self._lagging[name] = (left - 1, before)
            return httpx.Response(200, json=before) if before else _error(404, f"No status found for {name}")
        return httpx.Response(200, json=self._status[name])

    def _restart(self, name: str, query: httpx.QueryParams) -> httpx.Response:
        is_wholly_failed = query.get("includeTasks") == query.get("onlyFailed") == "true"
        if is_wholly_failed and self._status[name]["tasks"][0]["state"] == "FAILED":
            self._status[name] = self._started(name)
        return httpx.Response(202, json=self._status[name])


@dataclass
class FakeTime:
    """A clock that only sleeping moves."""

    now: float = 0.0

    def clock(self) -> float:
        """Seconds since the beginning."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Time passes at once."""
        self.now += seconds


def _no_class(config: dict[str, str]) -> str:
    name = config["connector.class"]
    return (
        f"Failed to find any class that implements Connector and which name matches {name}, available connectors are:"
    )


def _error(status: int, message: str) -> httpx.Response:
    return httpx.Response(status, json={"error_code": status, "message": message})
