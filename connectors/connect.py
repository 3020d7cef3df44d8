"""A typed client for the REST API of Kafka Connect. Does the I/O; what to do is decided elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
from pydantic import TypeAdapter, ValidationError

from connectors.model import Config, ConnectorStatus, FieldError, Validation

RETRY_PAUSE_SECONDS = 0.5
_NAMES = TypeAdapter(list[str])
_CONFIG = TypeAdapter(dict[str, str | None])
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
    so an answer that was cut off is asked for again. All methods raise ConnectError's subclasses."""

    def __init__(self, http: httpx.Client, deadline: Deadline) -> None:
        self._http = http
        self._deadline = deadline

    def names(self) -> list[str]:
        """The connectors that Connect knows, sorted."""
        return sorted(_read(_NAMES.validate_json, self._request("GET", "/connectors")))

    def find_config(self, name: str) -> Config | None:
        """The settings that Connect holds, references such as ${env:...} unresolved; None if it has none."""
        try:
            answer = self._request("GET", f"/connectors/{_part(name)}/config")
        except UnknownConnector:
            return None
        # A null is how Connect stores a setting that is not set.
        return {k: v for k, v in _read(_CONFIG.validate_json, answer).items() if v is not None}

    def get_status(self, name: str) -> ConnectorStatus:
        """How the connector and its tasks are. Raises UnknownConnector, also for a moment after its creation."""
        answer = self._request("GET", f"/connectors/{_part(name)}/status")
        return _read(ConnectorStatus.model_validate_json, answer)

    def validate(self, connector_class: str, config: Config) -> list[FieldError]:
        """What Connect and the connector itself (which may log in to its database) say against the settings."""
        path = f"/connector-plugins/{_part(connector_class)}/config/validate"
        return _read(Validation.model_validate_json, self._request("PUT", path, body=config)).errors()

    def put_config(self, name: str, config: Config) -> None:
        """Creates the connector, or replaces all its settings. Raises RejectedConfig."""
        self._request("PUT", f"/connectors/{_part(name)}/config", body=config)

    def restart_failed(self, name: str) -> None:
        """Restarts what is FAILED, the connector as well as its tasks, and leaves alone what runs."""
        query = {"includeTasks": "true", "onlyFailed": "true"}
        self._request("POST", f"/connectors/{_part(name)}/restart", query=query)

    def delete(self, name: str) -> None:
        """Removes the connector; what it streamed from (a replication slot, for one) stays. Raises
        UnknownConnector."""
        self._request("DELETE", f"/connectors/{_part(name)}")

    def _request(
        self, method: str, path: str, *, body: Config | None = None, query: dict[str, str] | None = None
    ) -> bytes:
        while True:
            failure: ConnectError
            try:
                timeout = max(self._deadline.remaining(), RETRY_PAUSE_SECONDS)
                response = self._http.request(method, path, json=body, params=query, timeout=timeout)
                if response.is_success:
                    return response.content
                failure = _failure(response)
            except httpx.RequestError as error:
                where = self._http.base_url
                reason = str(error) or type(error).__name__
                failure = ConnectUnreachable(
                    f"Kafka Connect does not answer at {where} (waited {self._deadline.seconds:g} s): {reason}"
                )
            is_passing = isinstance(failure, ConnectUnreachable | RebalanceInProgress)
            if not is_passing or not self._deadline.pause(RETRY_PAUSE_SECONDS):
                raise failure


def _failure(response: httpx.Response) -> ConnectError:
    status = response.status_code
    try:
        message = str(response.json()["message"])
    except (ValueError, KeyError, TypeError):
        return _foreign_answer(response)
    if status in (400, 422) or "BadRequestException: " in message:
        # Validation answers 500 for a connector class that it does not have.
        return RejectedConfig(message.rpartition("Exception: ")[2].partition(", available connectors are")[0])
    match status:
        case 404:
            return UnknownConnector(message)
        case 409:
            return RebalanceInProgress(f"Connect was rebalancing until the deadline: {message}")
        case 503:
            return ConnectUnreachable(f"Connect is not ready: {message}")
        case _:
            return UnexpectedAnswer(f"Connect answered {status}: {message}")


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
