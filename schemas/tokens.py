"""Access tokens: what is in one (RFC 9068, JWT profile for OAuth 2.0 access tokens) and how one is verified."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from schemas.ids import is_uuid

ALGORITHM = "ES256"
TOKEN_TYPE = "at+jwt"  # noqa: S105 - the header `typ` of RFC 9068, section 2.1; no secret
AUDIENCE = "chat4all"
LIFETIME_SECONDS = 15 * 60
MAX_TOKEN_LENGTH = 4096
CACHE_SIZE = 10_000


class InvalidToken(Exception):
    """The access token was not issued here, was altered, or is not for this service."""


class ExpiredToken(InvalidToken):
    """The access token has expired; get a new one from /oauth/token."""


@dataclass(frozen=True, slots=True)
class Principal:
    """The authenticated caller. `expires_at` is in seconds since the epoch."""

    user_id: str
    client_id: str
    scopes: frozenset[str]
    expires_at: float


class TokenVerifier:
    """Verifies access tokens against a key set. Remembers those it has verified (bounded), because a signature
    costs ten times what the rest of a request's authentication does. Raises InvalidToken, ExpiredToken."""

    def __init__(self, keys: KeySet, *, issuer: str, clock: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._issuer = issuer
        self._clock = clock
        self._verified: dict[str, Principal] = {}

    def verify(self, token: str) -> Principal:
        """The principal whom the token speaks for."""
        now = self._clock()
        principal = self._verified.get(token)
        if principal is None:
            principal = self._read(token)
            if len(self._verified) >= CACHE_SIZE:
                self._verified.clear()
            self._verified[token] = principal
        if principal.expires_at <= now:
            self._verified.pop(token, None)
            raise ExpiredToken("The access token has expired; get a new one from /oauth/token.")
        return principal

    def _read(self, token: str) -> Principal:
        if len(token) > MAX_TOKEN_LENGTH:
            raise InvalidToken("The access token is too long.")
        try:
            decoded = jwt.decode(token, self._keys, algorithms=[ALGORITHM])
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise InvalidToken("The access token is not valid.") from error
        header, claims = decoded.header, decoded.claims
        if header.get("typ") != TOKEN_TYPE:
            raise InvalidToken("This is not an access token.")
        subject, expires_at = claims.get("sub"), claims.get("exp")
        is_for_us = claims.get("iss") == self._issuer and claims.get("aud") == AUDIENCE
        if not is_for_us or not isinstance(subject, str) or not is_uuid(subject):
            raise InvalidToken("The access token was not issued for this service.")
        if not isinstance(expires_at, int | float) or isinstance(expires_at, bool):
            raise InvalidToken("The access token has no expiry.")
        return Principal(
            user_id=subject,
            client_id=str(claims.get("client_id", "")),
            scopes=frozenset(str(claims.get("scope", "")).split()),
            expires_at=float(expires_at),
        )


def bearer_token(authorization: str | None) -> str | None:
    """The token in an `Authorization: Bearer …` header (RFC 6750, section 2.1), or None."""
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None
