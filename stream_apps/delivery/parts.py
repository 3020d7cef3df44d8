"""How the parts of the system are, for whoever is signed in: up or down, and how soon they answered. No addresses, no
reasons: those are for operators."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Literal

import httpx
from pydantic import BaseModel, Field

from stream_apps.delivery.tables import Tables, TablesUnavailable
from stream_apps.log_reader import LogReader, LogUnavailable

TIMEOUT_SECONDS = 1.5
KEPT_SECONDS = 2.0
"""However many ask, the parts are asked no more often than this."""


class PartState(BaseModel):
    """How one part is."""

    name: str
    state: Literal["up", "down"]
    answered_in_ms: float | None = Field(description="How long it took to answer; null if it did not.")


class Parts:
    """Asks Redis, Postgres, and whatever has an HTTP address; all at once, and once for all who ask at one time."""

    def __init__(self, tables: Tables, log: LogReader, addresses: Mapping[str, str]) -> None:
        self._tables = tables
        self._log = log
        self._addresses = dict(addresses)
        self._http = httpx.AsyncClient(timeout=TIMEOUT_SECONDS, trust_env=False)
        self._found: asyncio.Task[list[PartState]] | None = None
        self._found_at = 0.0

    async def close(self) -> None:
        """Ends what is under way."""
        if self._found is not None:
            self._found.cancel()
            await asyncio.gather(self._found, return_exceptions=True)
        await self._http.aclose()

    async def look(self) -> list[PartState]:
        """How the parts are, or were within the last seconds."""
        now = asyncio.get_running_loop().time()
        if self._found is None or (self._found.done() and now - self._found_at >= KEPT_SECONDS):
            self._found, self._found_at = asyncio.create_task(self._ask_all(), name="parts"), now
        return await asyncio.shield(self._found)

    async def _ask_all(self) -> list[PartState]:
        questions = {"delivery": _answer_at_once, "redis": self._ask_redis, "postgres": self._ask_postgres}
        asked = [ask(name, question) for name, question in questions.items()]
        asked += [ask(name, self._question(address)) for name, address in self._addresses.items()]
        return await asyncio.gather(*asked)

    async def _ask_redis(self) -> bool:
        try:
            await self._tables.ping()
        except TablesUnavailable:
            return False
        return True

    async def _ask_postgres(self) -> bool:
        try:
            await self._log.ping()
        except LogUnavailable:
            return False
        return True

    def _question(self, address: str) -> Callable[[], Awaitable[bool]]:
        async def question() -> bool:
            try:
                answer = await self._http.get(address)
            except httpx.HTTPError:
                return False
            return answer.is_success and is_running(answer.content)

        return question


async def _answer_at_once() -> bool:
    return True


async def ask(name: str, question: Callable[[], Awaitable[bool]]) -> PartState:
    """The part's state by its answer to the question."""
    started = time.perf_counter()
    is_up = await question()
    took = round((time.perf_counter() - started) * 1000, 1)
    return PartState(name=name, state="up" if is_up else "down", answered_in_ms=took if is_up else None)


def is_running(body: bytes) -> bool:
    """False if this is Kafka Connect's status of a connector, and the connector or one of its tasks does not run. (A
    worker answers 200 for a connector that has failed.)"""
    try:
        status = json.loads(body)
        states = [status["connector"]["state"], *(task["state"] for task in status["tasks"])]
    except (ValueError, KeyError, TypeError):
        return True
    return len(states) > 1 and all(state == "RUNNING" for state in states)
