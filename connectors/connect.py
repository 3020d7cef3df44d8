"""A typed client for the REST API of Kafka Connect. Does the I/O; what to do is decided elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError

from connectors.config_file import TargetState
from connectors.model import (
    Config,
    ConnectorStatus,
    FieldError,
    LogLevel,
    Offsets,
    Overview,
    Plugin,
    SourceOffset,
    Validation,
    Worker,
    without_nulls,
)

RETRY_PAUSE_SECONDS = 0.5
CONNECT_SECONDS = 3.0


class _Topics(BaseModel):
    topics: tuple[str, ...]


_NAMES = TypeAdapter(list[str])
_CONFIG = TypeAdapter(dict[str, str | None])
_OVERVIEWS = TypeAdapter(dict[str, Overview | dict[str, Any]])
_TOPICS = TypeAdapter(dict[str, _Topics])
_PLUGINS = TypeAdapter(list[Plugin])
_LEVELS = TypeAdapter(dict[str, LogLevel])
_Answer = TypeVar("_Answer")


class ConnectError(Exception):
    """Kafka Connect could not do what it was asked; the message is a sentence for an operator."""


class ConnectUnreachable(ConnectError):
    """Nothing answered as Kafka Connect before the deadline."""


class RebalanceInProgress(ConnectError):
    """Connect was handing out its connectors anew until the deadline, and takes no request meanwhile."""


class UnknownConnector(ConnectError):
    """Connect has no connector of that name."""


class RejectedConfig(ConnectError):
    """Connect refuses the settings. `fields` says why, per setting, where Connect does."""

    def __init__(self, sentence: str, fields: list[FieldError] | None = None) -> None:
        super().__init__(sentence)
        self.fields = fields or []


class AlreadyThere(ConnectError):
    """Connect has a connector of that name."""


class NotStopped(ConnectError):
    """Offsets can be changed only while the connector is STOPPED."""


class RefusedLogin(ConnectError):
    """Connect, or what stands before it, wants a login that it was not given."""


class UnexpectedAnswer(ConnectError):
    """Connect answered something that its documentation does not promise."""


class Deadline:
    """A moment by which something must be done; clock and sleep are arguments so that tests need not wait."""

    def __init__(
        self,
        seconds: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.seconds = seconds
        self.clock = clock
        self._sleep = sleep
        self._end = clock() + seconds

    def remaining(self) -> float:
        """Seconds left; negative once it has passed."""
        return self._end - self.clock()

    def pause(self, seconds: float) -> bool:
        """Sleeps that long. False, at once, if the deadline would pass meanwhile."""
        if self.remaining() < seconds:
            return False
        self._sleep(seconds)
        return True


class ConnectClient:
    """Every call waits for a Connect that is starting or rebalancing, until the deadline. All calls may run twice,
    so an answer that was cut off is asked for again, of the next worker if there are several (`http` is one client
    per worker). All methods raise ConnectError's subclasses."""

    def __init__(self, http: Sequence[httpx.Client], deadline: Deadline) -> None:
        self._http = http
        self._next = 0
        self._deadline = deadline

    def get_worker(self) -> Worker:
        """The worker that answers."""
        return _read(Worker.model_validate_json, self._request("GET", "/"))

    # --- Connectors ---

    def names(self) -> list[str]:
        """The connectors that Connect knows, sorted."""
        return sorted(_read(_NAMES.validate_json, self._request("GET", "/connectors")))

    def get_overviews(self) -> dict[str, Overview]:
        """Settings and status of all connectors, by name."""
        answer = self._request("GET", "/connectors", query={"expand": ["info", "status"]})
        found = _read(_OVERVIEWS.validate_json, answer)
        return {name: each for name, each in sorted(found.items()) if isinstance(each, Overview)}

    def find_config(self, name: str) -> Config | None:
        """The settings that Connect holds, references such as ${env:...} unresolved; None if it has none."""
        try:
            return self.get_config(name)
        except UnknownConnector:
            return None

    def get_config(self, name: str) -> Config:
        """As find_config. Raises UnknownConnector."""
        answer = self._request("GET", f"/connectors/{_part(name)}/config")
        return without_nulls(_read(_CONFIG.validate_json, answer))

    def get_status(self, name: str) -> ConnectorStatus:
        """How the connector and its tasks are. Raises UnknownConnector, also for a moment after its creation."""
        answer = self._request("GET", f"/connectors/{_part(name)}/status")
        return _read(ConnectorStatus.model_validate_json, answer)

    def get_topics(self, name: str) -> list[str]:
        """The topics that the connector has written to since it was made, sorted."""
        answer = self._request("GET", f"/connectors/{_part(name)}/topics")
        topics = _read(_TOPICS.validate_json, answer).get(name)
        return sorted(topics.topics) if topics else []

    def validate(self, connector_class: str, config: Config) -> Validation:
        """What Connect and the connector itself (which may log in to its database) say about the settings."""
        path = f"/connector-plugins/{_part(connector_class)}/config/validate"
        return _read(Validation.model_validate_json, self._request("PUT", path, body=config))

    def put_config(self, name: str, config: Config) -> None:
        """Creates the connector, or replaces all its settings. Raises RejectedConfig."""
        self._request("PUT", f"/connectors/{_part(name)}/config", body=config)

    def create(self, name: str, config: Config, state: TargetState) -> None:
        """Creates the connector in a state other than running, without its ever running. One that is there already is
        left alone. Raises RejectedConfig."""
        body = {"name": name, "config": config, "initial_state": state.upper()}
        try:
            self._request("POST", "/connectors", body=body)
        except AlreadyThere:
            return

    def set_state(self, name: str, state: TargetState) -> None:
        """Has the connector run (again), pause (its tasks stay, and hold what they hold) or stop (its tasks end).
        Connect does it a moment later. Raises UnknownConnector."""
        call = {TargetState.running: "resume", TargetState.paused: "pause", TargetState.stopped: "stop"}[state]
        self._request("PUT", f"/connectors/{_part(name)}/{call}")

    def restart(self, name: str, *, only_failed: bool) -> None:
        """Restarts the connector and its tasks; with `only_failed` what is FAILED, leaving alone what runs. Raises
        UnknownConnector."""
        query = {"includeTasks": "true", "onlyFailed": str(only_failed).lower()}
        self._request("POST", f"/connectors/{_part(name)}/restart", query=query)

    def delete(self, name: str) -> None:
        """Removes the connector; what it streamed from (a replication slot, for one) stays. Raises
        UnknownConnector."""
        self._request("DELETE", f"/connectors/{_part(name)}")

    # --- Offsets ---

    def get_offsets(self, name: str) -> tuple[SourceOffset, ...]:
        """How far the connector has read, as Connect has committed it. Raises UnknownConnector."""
        answer = self._request("GET", f"/connectors/{_part(name)}/offsets")
        return _read(Offsets.model_validate_json, answer).offsets

    def set_offsets(self, name: str, offsets: Sequence[SourceOffset]) -> None:
        """Writes these offsets in place of the committed ones. Raises NotStopped, UnknownConnector."""
        body = {"offsets": [each.model_dump() for each in offsets]}
        self._request("PATCH", f"/connectors/{_part(name)}/offsets", body=body)

    def reset_offsets(self, name: str) -> None:
        """Forgets the committed offsets. Raises NotStopped, UnknownConnector."""
        self._request("DELETE", f"/connectors/{_part(name)}/offsets")

    # --- The workers ---

    def get_plugins(self) -> list[Plugin]:
        """All plugins, connectors as well as converters, transformations and predicates."""
        answer = self._request("GET", "/connector-plugins", query={"connectorsOnly": "false"})
        return _read(_PLUGINS.validate_json, answer)

    def get_log_levels(self) -> dict[str, LogLevel]:
        """The loggers of the worker that answers whose level was set, by name."""
        return _read(_LEVELS.validate_json, self._request("GET", "/admin/loggers"))

    def set_log_level(self, logger: str, level: str) -> None:
        """Sets a logger's level (Java's names, such as DEBUG) on every worker, until it restarts."""
        query = {"scope": "cluster"}
        self._request("PUT", f"/admin/loggers/{_part(logger)}", body={"level": level}, query=query)

    def _request(
        self, method: str, path: str, *, body: Mapping[str, Any] | None = None, query: Mapping[str, Any] | None = None
    ) -> bytes:
        asked = 0
        while True:
            http = self._http[self._next]
            failure = self._ask(http, method, path, body=body, query=query)
            if isinstance(failure, bytes):
                return failure
            is_passing = isinstance(failure, ConnectUnreachable | RebalanceInProgress)
            asked += 1
            self._next = (self._next + is_passing) % len(self._http)
            if is_passing and asked % len(self._http):
                continue
            if not is_passing or not self._deadline.pause(RETRY_PAUSE_SECONDS):
                raise failure

    def _ask(
        self,
        http: httpx.Client,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None,
        query: Mapping[str, Any] | None,
    ) -> bytes | ConnectError:
        patience = max(self._deadline.remaining(), RETRY_PAUSE_SECONDS)
        timeout = httpx.Timeout(patience, connect=min(patience, CONNECT_SECONDS))
        try:
            response = http.request(method, path, json=body, params=query, timeout=timeout)
        except httpx.RequestError as error:
            reason = str(error) or type(error).__name__
            return ConnectUnreachable(
                f"Kafka Connect does not answer at {http.base_url} (waited {self._deadline.seconds:g} s): {reason}"
            )
        return response.content if response.is_success else _failure(response)


def _failure(response: httpx.Response) -> ConnectError:
    status = response.status_code
    if status in (401, 403):
        return RefusedLogin(
            f"Kafka Connect refuses this login ({status} {response.reason_phrase}): set CHAT4ALL_CONNECT_USER and"
            " CHAT4ALL_CONNECT_PASSWORD."
        )
    try:
        message = str(response.json()["message"])
    except (ValueError, KeyError, TypeError):
        return _foreign_answer(response)
    if status in (400, 422) or "BadRequestException: " in message:
        if "must be in the STOPPED state" in message:
            return NotStopped(message)
        # Validation answers 500 for a connector class that it does not have.
        return RejectedConfig(message.rpartition("Exception: ")[2].partition(", available connectors are")[0])
    if status == 409 and "already exists" in message:
        return AlreadyThere(message)
    if "trying to forward REST request" in message or "a rebalance is expected" in message:
        status = 409  # the worker that led the others is gone, and they have not noticed yet; or they are about to
    kinds: dict[int, tuple[type[ConnectError], str]] = {
        404: (UnknownConnector, ""),
        409: (RebalanceInProgress, "Connect was rebalancing until the deadline: "),
        503: (ConnectUnreachable, "Connect is not ready: "),
    }
    kind, said = kinds.get(status, (UnexpectedAnswer, f"Connect answered {status}: "))
    return kind(said + message)


def _foreign_answer(response: httpx.Response) -> ConnectError:
    """An answer without Connect's error document. A worker that starts answers 404 with a page of HTML until its
    REST is complete; a proxy in front of one that is down answers 502 to 504."""
    said = f"{response.status_code} {response.reason_phrase}"
    if response.status_code in (404, 502, 503, 504):
        where = response.url.copy_with(path="/", query=None)
        return ConnectUnreachable(f"What answers at {where} is not Kafka Connect, or still starts: {said}")
    return UnexpectedAnswer(f"Connect answered {said}.")


def _read(parse: Callable[[bytes], _Answer], answer: bytes) -> _Answer:
    try:
        return parse(answer)
    except ValidationError as error:
        first: Any = error.errors(include_url=False, include_input=False)[0]
        raise UnexpectedAnswer(f"Connect's answer reads otherwise than documented: {first['msg']}") from error


def _part(name: str) -> str:
    """The name as one segment of a path, from which a URL's own dots must not lead elsewhere."""
    if name in ("", ".", ".."):
        raise UnknownConnector(f"There is no connector named {name!r}.")
    return quote(name, safe="")
