"""Requests with a token that is fresh, tried again where that is safe."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from typing import Any

import httpx

from chat4all_client.errors import LoggedOut, Refused, Unreachable

REFRESH_BEFORE_SECONDS = 30.0
FIRST_DELAY_SECONDS = 0.1
LONGEST_DELAY_SECONDS = 5.0
BUSY = frozenset({429, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Tokens:
    """An access token until `expires_at` (time.monotonic), and what gets the next one."""

    access: str
    refresh: str | None
    expires_at: float


def delay_before(attempt: int, *, retry_after: float | None = None) -> float:
    """Seconds to wait before another attempt (1, 2, …): twice as long each time, never the same for two clients."""
    if retry_after is not None:
        return retry_after * random.uniform(1.0, 1.2)  # noqa: S311 - no secret
    longest = min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2.0 ** (attempt - 1))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - no secret


def raise_for_status(answer: httpx.Response) -> None:
    """Raises Unreachable for the answers of a busy server, Refused for every other status from 400 on."""
    if answer.status_code < 400:
        return
    try:
        document = answer.json()
    except ValueError:
        document = {}
    problem: dict[str, Any] = document if isinstance(document, dict) else {}
    problem.setdefault("detail", problem.get("error_description"))
    if answer.status_code in BUSY:
        seconds = answer.headers.get("Retry-After", "")
        raise Unreachable(
            f"{answer.status_code}: {problem['detail'] or 'try again shortly'}",
            retry_after=float(seconds) if seconds.isdigit() else None,
        )
    raise Refused(answer.status_code, problem)


class Session:
    """One user's tokens, and requests with them."""

    def __init__(self, writes_url: str, reads_url: str, http: httpx.AsyncClient) -> None:
        self.writes_url = writes_url.rstrip("/")
        self.reads_url = reads_url.rstrip("/")
        self.http = http
        self._tokens: Tokens | None = None
        self._refreshing = asyncio.Lock()

    @property
    def expires_at(self) -> float:
        """Until when the token is good (time.monotonic). Raises LoggedOut."""
        return self._need_tokens().expires_at

    async def log_in(self, username: str, password: str) -> None:
        """Gets the first tokens. Raises Refused, Unreachable."""
        await self._grant({"grant_type": "password", "username": username, "password": password})

    async def fresh_token(self) -> str:
        """A token that lives for a while yet. Raises LoggedOut, Unreachable."""
        if self._need_tokens().expires_at - time.monotonic() < REFRESH_BEFORE_SECONDS:
            await self._refresh(self._need_tokens())
        return self._need_tokens().access

    async def renew(self) -> str:
        """A newer token than the one at hand. Raises LoggedOut, Unreachable."""
        await self._refresh(self._need_tokens())
        return self._need_tokens().access

    async def revoke(self) -> None:
        """Logs out. Raises Unreachable."""
        tokens, self._tokens = self._tokens, None
        if tokens is not None and tokens.refresh is not None:
            await self.send("POST", f"{self.writes_url}/oauth/revoke", data={"token": tokens.refresh})

    async def call(self, method: str, url: str, **arguments: Any) -> httpx.Response:
        """The answer to one attempt with a fresh token; a second one if the server knows the first token no more.
        Raises Refused for every status from 400 on but those of a busy server, which are Unreachable, and LoggedOut."""
        answer = await self.send(method, url, token=await self.fresh_token(), **arguments)
        if answer.status_code == 401:
            answer = await self.send(method, url, token=await self.renew(), **arguments)
        raise_for_status(answer)
        return answer

    async def call_until_answered(
        self, method: str, url: str, *, within_seconds: float, **arguments: Any
    ) -> httpx.Response:
        """As `call`, tried again for as long as the server does not answer. For requests that may be repeated. Raises
        Unreachable when time ran out."""
        deadline = time.monotonic() + within_seconds
        attempt = 0
        while True:
            attempt += 1
            try:
                return await self.call(method, url, **arguments)
            except Unreachable as error:
                delay = delay_before(attempt, retry_after=error.retry_after)
                if time.monotonic() + delay > deadline:
                    raise
                await asyncio.sleep(delay)

    async def send(self, method: str, url: str, *, token: str | None = None, **arguments: Any) -> httpx.Response:
        """The answer, whatever it is. Raises Unreachable."""
        headers = {**arguments.pop("headers", {}), **({} if token is None else {"Authorization": f"Bearer {token}"})}
        try:
            return await self.http.request(method, url, headers=headers, **arguments)
        except httpx.TransportError as error:
            raise Unreachable(f"{type(error).__name__}: {error}") from error

    def _need_tokens(self) -> Tokens:
        if self._tokens is None:
            raise LoggedOut("Nobody is logged in: register or log in first.")
        return self._tokens

    async def _refresh(self, known: Tokens) -> None:
        """One refresh at a time: the refresh token is good once."""
        async with self._refreshing:
            if self._tokens is not known:
                return
            if known.refresh is None:
                raise LoggedOut("The token has expired, and there is no refresh token: log in.")
            try:
                await self._grant({"grant_type": "refresh_token", "refresh_token": known.refresh})
            except Refused as error:
                self._tokens = None
                raise LoggedOut(f"The token cannot be refreshed any more ({error}): log in.") from error

    async def _grant(self, form: dict[str, str]) -> None:
        answer = await self.send("POST", f"{self.writes_url}/oauth/token", data=form)
        raise_for_status(answer)
        granted = answer.json()
        self._tokens = Tokens(
            granted["access_token"], granted.get("refresh_token"), time.monotonic() + float(granted["expires_in"])
        )
