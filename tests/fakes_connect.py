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
STATES = {"pause": "PAUSED", "resume": "RUNNING", "stop": "STOPPED"}
DONE = "The Connect framework-managed offsets for this connector have been {} successfully. However, if this connector"


@dataclass
class FakeConnect:
    """`plugins`: the settings that each known connector class requires. `failure_of`: the trace with which the task
    of a connector with this config fails, None when it runs. `status_lag`: how many times after a change `status`
    still answers as before it. `interruptions` come before the next answers. `calls`: what was asked. `offsets`: by
    connector."""

    plugins: dict[str, tuple[str, ...]]
    failure_of: Callable[[Config], str | None] = lambda _: None
    status_lag: int = 0
    interruptions: list[httpx.Response | Exception] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    configs: dict[str, dict[str, str]] = field(default_factory=dict)
    offsets: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    levels: dict[str, str] = field(default_factory=lambda: {"root": "INFO"})
    told: dict[str, str] = field(default_factory=dict)
    _status: dict[str, dict[str, Any]] = field(default_factory=dict)
    _lagging: dict[str, tuple[int, dict[str, Any] | None]] = field(default_factory=dict)

    def client(self, url: str = URL) -> httpx.Client:
        """An HTTP client that talks to this double."""
        return httpx.Client(base_url=url, transport=httpx.MockTransport(self._answer))

    def fail(self, name: str, trace: str) -> None:
        """The connector's task fails now."""
        self._status[name]["tasks"][0] |= {"state": "FAILED", "trace": trace}

    def _answer(self, request: httpx.Request) -> httpx.Response:  # noqa: PLR0911 - one per call
        path = request.url.raw_path.decode().partition("?")[0]
        self.calls.append(f"{request.method} {path}")
        if self.interruptions:
            interruption = self.interruptions.pop(0)
            if isinstance(interruption, Exception):
                raise interruption
            return interruption
        body: Any = json.loads(request.content) if request.content else None
        match [request.method, *(unquote(part) for part in path.strip("/").split("/"))]:
            case ["GET", ""]:
                return httpx.Response(200, json={"version": "4.3.1", "commit": "x", "kafka_cluster_id": "y"})
            case ["GET", "connectors"]:
                return httpx.Response(200, json=self._list(request.url.params))
            case ["POST", "connectors"]:
                return self._post(body)
            case ["GET", "connector-plugins"]:
                return httpx.Response(200, json=[{"class": c, "type": "source", "version": "1"} for c in self.plugins])
            case ["PUT", "connector-plugins", _, "config", "validate"]:
                return self._validate(body)
            case ["PUT", "connectors", name, "config"]:
                return self._put(name, body)
            case [_, "connectors", name, *rest] if name in self.configs:
                return self._answer_about(name, [request.method, *rest], request.url.params, body)
            case [_, "admin", "loggers", *rest]:
                return self._log(rest, body)
            case _:
                return _error(404, f"Not found: {path}")

    def _answer_about(  # noqa: PLR0911 - one per call
        self, name: str, call: list[str], query: httpx.QueryParams, body: Any
    ) -> httpx.Response:
        match call:
            case ["GET", "config"]:
                return httpx.Response(200, json=self.configs[name])
            case ["GET", "status"]:
                return self._show(name)
            case ["GET", "topics"]:
                return httpx.Response(200, json={name: {"topics": []}})
            case ["POST", "restart"]:
                return self._restart(name, query)
            case ["PUT", verb] if verb in STATES:
                self._change(name, STATES[verb])
                return httpx.Response(204 if verb == "stop" else 202)
            case [_, "offsets"]:
                return self._answer_offsets(name, call[0], body)
            case ["DELETE"]:
                del self.configs[name], self._status[name]
                return httpx.Response(204)
            case _:
                return _error(405, "HTTP 405 Method Not Allowed")

    def _list(self, query: httpx.QueryParams) -> Any:
        if "expand" not in query:
            return list(self.configs)
        found: dict[str, dict[str, Any]] = {}
        for name, config in self.configs.items():
            found[name] = {"info": {"name": name, "config": config, "tasks": [], "type": "source"}}
            shown = self._show(name)
            if shown.is_success:
                found[name]["status"] = shown.json()
        return found

    def _errors(self, config: dict[str, str]) -> dict[str, list[str]]:
        required = self.plugins[config["connector.class"]]
        return {key: [f"The '{key}' value is invalid: A value is required"] for key in required if key not in config}

    def _validate(self, config: dict[str, str]) -> httpx.Response:
        if config["connector.class"] not in self.plugins:
            return _error(500, f"x.BadRequestException: {_no_class(config)}")
        errors = self._errors(config)
        known = {"name", "connector.class", "tasks.max", "errors.tolerance", *self.plugins[config["connector.class"]]}
        settings = [
            {"definition": {"name": k}, "value": {"name": k, "errors": errors.get(k, [])}} for k in sorted(known)
        ]
        return httpx.Response(200, json={"error_count": len(errors), "configs": settings})

    def _post(self, body: dict[str, Any]) -> httpx.Response:
        if body["name"] in self.configs:
            return _error(409, f"Connector {body['name']} already exists")
        self.told[body["name"]] = body.get("initial_state", "RUNNING")
        return self._put(body["name"], body["config"])

    def _put(self, name: str, config: dict[str, str]) -> httpx.Response:
        if config["connector.class"] not in self.plugins:
            return _error(400, f"x.ConnectException: {_no_class(config)}")
        if errors := self._errors(config):
            sentences = [sentence for each in errors.values() for sentence in each]
            return _error(400, "\n".join(["Connector configuration is invalid", *sentences]))
        is_new = name not in self.configs
        self.configs[name] = {**config, "name": name}
        self._change(name, self.told.get(name, "RUNNING"))
        return httpx.Response(201 if is_new else 200, json={"name": name, "config": self.configs[name]})

    def _change(self, name: str, state: str) -> None:
        self.told[name] = state
        self._lagging[name] = (self.status_lag, self._status.get(name))
        self._status[name] = self._started(name)

    def _started(self, name: str) -> dict[str, Any]:
        trace, state = self.failure_of(self.configs[name]), self.told.get(name, "RUNNING")
        task = {"id": 0, "state": "FAILED" if trace else state, "worker_id": WORKER}
        return {
            "name": name,
            "connector": {"state": state, "worker_id": WORKER},
            "tasks": [task | ({"trace": trace} if trace else {})] if state != "STOPPED" else [],
            "type": "source",
        }

    def _show(self, name: str) -> httpx.Response:
        left, before = self._lagging.get(name, (0, None))
        if left:
            self._lagging[name] = (left - 1, before)
            return httpx.Response(200, json=before) if before else _error(404, f"No status found for {name}")
        return httpx.Response(200, json=self._status[name])

    def _restart(self, name: str, query: httpx.QueryParams) -> httpx.Response:
        tasks = self._status[name]["tasks"]
        is_failed = bool(tasks) and tasks[0]["state"] == "FAILED"
        if query.get("includeTasks") == "true" and (is_failed or query.get("onlyFailed") != "true"):
            self._status[name] = self._started(name)
        return httpx.Response(202, json=self._status[name])

    def _answer_offsets(self, name: str, method: str, body: Any) -> httpx.Response:
        if method == "GET":
            return httpx.Response(200, json={"offsets": self.offsets.get(name, [])})
        if self._status[name]["connector"]["state"] != "STOPPED":
            return _error(400, "Connectors must be in the STOPPED state before their offsets can be modified. This can")
        self.offsets[name] = body["offsets"] if method == "PATCH" else []
        return httpx.Response(200, json={"message": DONE.format("altered" if method == "PATCH" else "reset")})

    def _log(self, rest: list[str], body: Any) -> httpx.Response:
        if rest and body:
            self.levels[rest[0]] = body["level"]
            return httpx.Response(204)
        return httpx.Response(200, json={k: {"level": v, "last_modified": None} for k, v in self.levels.items()})


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
