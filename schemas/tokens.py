"""Access tokens: what is in one (RFC 9068, JWT profile for OAuth 2.0 access tokens) and how one is verified."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from joserfc.jwk import KeySet

from schemas.ids import is_uuid
from schemas.jwts import MAX_TOKEN_LENGTH, ExpiredToken, InvalidToken, TokenRules, decode_token
from schemas.key_files import FixedKeys, Keys

__all__ = [
    "ALGORITHM",
    "AUDIENCE",
    "CHAT",
    "LIFETIME_SECONDS",
    "MAX_TOKEN_LENGTH",
    "ExpiredToken",
    "InvalidToken",
    "Principal",
    "TokenVerifier",
    "bearer_token",
]

ALGORITHM = "ES256"
TOKEN_TYPE = "at+jwt"  # noqa: S105 - the header `typ` of RFC 9068, section 2.1; no secret
AUDIENCE = "chat4all"
CHAT = "chat"
"""The scope of everything that a user does."""
LIFETIME_SECONDS = 15 * 60
CACHE_SIZE = 10_000


@dataclass(frozen=True, slots=True)
class Principal:
    """The authenticated caller. `user_id` is empty for a client that acts for itself (RFC 6749, section 4.4);
    `expires_at` is in seconds since the epoch."""

    user_id: str
    client_id: str
    scopes: frozenset[str]
    expires_at: float


class TokenVerifier:
    """Verifies access tokens of our own issuer. Remembers those it has verified (bounded), because a signature
    costs ten times what the rest of a request's authentication does."""

    def __init__(self, keys: KeySet | Keys, *, issuer: str, clock: Callable[[], float] = time.time) -> None:
        self._keys: Keys = FixedKeys(keys) if isinstance(keys, KeySet) else keys
        self._generation = self._keys.generation
        self._clock = clock
        self._verified: dict[str, Principal] = {}
        self._rules = TokenRules(
            issuer=issuer,
            audience=AUDIENCE,
            algorithms=frozenset({ALGORITHM}),
            types=frozenset({TOKEN_TYPE, f"application/{TOKEN_TYPE}"}),
            headers=frozenset({"alg", "typ", "kid"}),
        )

    def verify(self, token: str) -> Principal:
        """The principal whom the token speaks for. Raises InvalidToken, ExpiredToken."""
        principal = self.find_verified(token)
        if principal is None:
            principal = _read_principal(decode_token(token, self._keys.find_key, self._rules, now=self._clock()))
            self.remember(token, principal)
        return principal

    def find_verified(self, token: str) -> Principal | None:
        """The principal of a token that was verified before, or None. Raises ExpiredToken."""
        if self._generation != self._keys.generation:  # a key may be gone
            self.forget_all()
        principal = self._verified.get(token)
        if principal is not None and principal.expires_at <= self._clock():
            del self._verified[token]
            raise ExpiredToken
        return principal

    def remember(self, token: str, principal: Principal) -> None:
        """Keeps what is known of a token: by `verify`, or by who verifies tokens of other issuers."""
        if len(self._verified) >= CACHE_SIZE:
            self._verified.clear()
        self._verified[token] = principal

    def forget_all(self) -> None:
        """Every token is verified again when it comes next."""
        self._verified.clear()
        self._generation = self._keys.generation


def _read_principal(claims: dict[str, Any]) -> Principal:
    subject, client_id = claims.get("sub"), claims.get("client_id")
    if not isinstance(subject, str) or not isinstance(client_id, str):
        raise InvalidToken("The access token does not say who calls.")
    if subject != client_id and not is_uuid(subject):
        raise InvalidToken("The access token does not say who calls.")
    scope = claims.get("scope")
    return Principal(
        user_id="" if subject == client_id else subject,
        client_id=client_id,
        scopes=frozenset(scope.split()) if isinstance(scope, str) else frozenset(),
        expires_at=float(claims["exp"]),
    )


def bearer_token(authorization: str | None) -> str | None:
    """The token in an `Authorization: Bearer …` header (RFC 6750, section 2.1), or None."""
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None
