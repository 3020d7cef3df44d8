"""Issuers other than ourselves: their keys, fetched when they are needed, and what their tokens say."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from uuid import NAMESPACE_URL, uuid5

import httpx
from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry, Key, OctKey
from pydantic import BaseModel, ConfigDict, Field, field_validator

from schemas.jwts import InvalidToken, TokenRules, decode_token, read_header
from schemas.problems import ProblemError
from schemas.tokens import AUDIENCE, CHAT, Principal

logger = logging.getLogger(__name__)

ALGORITHMS = frozenset({"ES256", "RS256", "PS256"})
TYPES = frozenset({"at+jwt", "application/at+jwt", "jwt", None})
HEADERS = frozenset({"alg", "typ", "kid", "x5t", "x5t#S256"})
MAX_JWKS_BYTES = 256 * 1024
FETCH_TIMEOUT_SECONDS = 5.0
REFETCH_SECONDS = 10.0
MAX_AGE_SECONDS = 60 * 60
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class IssuerUnavailable(ProblemError):
    """The keys of the token's issuer cannot be fetched now; try again."""

    code, title, status = "issuer-unavailable", "Issuer unavailable", 503

    def __init__(self) -> None:
        super().__init__(
            "The keys of the token's issuer cannot be fetched now; try again.",
            headers={"Retry-After": str(int(REFETCH_SECONDS))},
        )


class TrustedIssuer(BaseModel):
    """An issuer whose tokens are accepted. They always mean users, and carry the scope `chat` whatever they say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    issuer: str = Field(min_length=1, description="The `iss` of its tokens.")
    jwks_url: str = Field(description="Where its keys are: https, or http on loopback.")
    audience: str = Field(default=AUDIENCE, min_length=1, description="The `aud` that its tokens must have.")
    creates_users: bool = Field(default=True, description="Whether a user gets an account by calling (or 403).")

    @field_validator("jwks_url")
    @classmethod
    def _is_safe(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.hostname and (parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)):
            return url
        raise ValueError("must be an https URL")


@dataclass(frozen=True, slots=True)
class ExternalUser:
    """What a token of an external issuer says of its user."""

    principal: Principal
    display_name: str


class ExternalIssuer:
    """Verifies the tokens of one issuer. Keys are fetched when a token needs one that is not there or when they are
    an hour old, never twice within ten seconds whatever is asked for, and by one request at a time."""

    def __init__(
        self,
        trusted: TrustedIssuer,
        *,
        clock: Callable[[], float] = time.monotonic,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.name = trusted.issuer
        self.creates_users = trusted.creates_users
        self._url = trusted.jwks_url
        self._rules = TokenRules(trusted.issuer, trusted.audience, ALGORITHMS, TYPES, HEADERS)
        self._clock = clock
        self._http = httpx.AsyncClient(timeout=FETCH_TIMEOUT_SECONDS, transport=transport)
        self._keys: dict[str, Key] | None = None
        self._tried_at = self._fetched_at = float("-inf")
        self._fetching = asyncio.Lock()

    async def verify(self, token: str, *, now: float) -> ExternalUser:
        """The user whom the token speaks for. Raises InvalidToken, IssuerUnavailable."""
        kid = read_header(token).get("kid")
        keys = await self._get_keys(kid if isinstance(kid, str) else "")
        return self._read_user(decode_token(token, keys.get, self._rules, now=now))

    async def close(self) -> None:
        """Ends the connections."""
        await self._http.aclose()

    async def _get_keys(self, kid: str) -> dict[str, Key]:
        async with self._fetching:
            now = self._clock()
            is_wanted = self._keys is None or kid not in self._keys or now - self._fetched_at >= MAX_AGE_SECONDS
            if is_wanted and now - self._tried_at >= REFETCH_SECONDS:
                self._tried_at = now
                try:
                    self._keys = await self._fetch()
                    self._fetched_at = now
                except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
                    # What was fetched before is better than nothing.
                    logger.warning("The keys of %s cannot be fetched: %r", self.name, error)
        if self._keys is None:
            raise IssuerUnavailable
        return self._keys

    async def _fetch(self) -> dict[str, Key]:
        content = b""
        async with self._http.stream("GET", self._url) as answer:
            if answer.status_code != httpx.codes.OK:
                raise ValueError(f"the issuer answered {answer.status_code}")
            async for chunk in answer.aiter_bytes():
                content += chunk
                if len(content) > MAX_JWKS_BYTES:
                    raise ValueError("the issuer's answer is too large")
        return dict(_read_keys(json.loads(content)["keys"]))

    def _read_user(self, claims: dict[str, Any]) -> ExternalUser:
        subject = claims.get("sub")
        if not isinstance(subject, str) or not 1 <= len(subject) <= 255:
            raise InvalidToken("The access token does not say who calls.")
        user_id = user_id_of(self.name, subject)
        name = claims.get("name") or claims.get("preferred_username")
        client_id = claims.get("client_id") or claims.get("azp")
        return ExternalUser(
            Principal(
                user_id=user_id,
                client_id=client_id if isinstance(client_id, str) else self.name,
                scopes=frozenset({CHAT}),
                expires_at=float(claims["exp"]),
            ),
            display_name=_storable(name) or user_id if isinstance(name, str) else user_id,
        )


def _read_keys(keys: list[Any]) -> Iterator[tuple[str, Key]]:
    """The keys that can verify, by id. Others (RFC 7517, section 5: of kinds not known here) are passed over, and so
    are secrets: what is published is no secret."""
    for entry in keys:
        try:
            key = JWKRegistry.import_key(entry)
        except (JoseError, ValueError, KeyError, TypeError):
            continue
        if not isinstance(key, OctKey) and isinstance(key.kid, str):
            yield key.kid, key


def user_id_of(issuer: str, subject: str) -> str:
    """The id of an external issuer's user: always the same UUIDv5 (RFC 9562, section 5.5)."""
    return str(uuid5(uuid5(NAMESPACE_URL, issuer), subject))


def _storable(text: str) -> str:
    return text.replace("\0", "").encode(errors="ignore").decode()[:100].strip()
