"""Signed JSON Web Tokens as RFC 8725 wants them read: strictly, and by rules that the token cannot choose."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from json import JSONDecoder
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import Key

MAX_TOKEN_LENGTH = 4096
MAX_LIFETIME_SECONDS = 24 * 60 * 60
LEEWAY_SECONDS = 30
"""How far the clocks of two machines may be apart where `iat` and `nbf` are looked at. `exp` is exact."""

_is_compact = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+").fullmatch


class InvalidToken(Exception):
    """The access token was not issued here, was altered, or is not for this service."""


class ExpiredToken(InvalidToken):
    """The access token has expired; get a new one from /oauth/token."""

    def __init__(self) -> None:
        super().__init__("The access token has expired; get a new one from /oauth/token.")


@dataclass(frozen=True, slots=True)
class TokenRules:
    """What a token must look like. `types` and `headers` are lower case; no other header is allowed, so none that
    names a key (jwk, jku, x5u, x5c) or changes the meaning of others (crit, b64) ever is."""

    issuer: str
    audience: str
    algorithms: frozenset[str]
    types: frozenset[str | None]
    headers: frozenset[str]


def decode_token(token: str, find_key: Callable[[str], Key | None], rules: TokenRules, *, now: float) -> dict[str, Any]:
    """The claims of a token, once everything about it holds. `now` is in seconds since the epoch. Raises InvalidToken,
    ExpiredToken."""
    header = read_header(token)
    if not header.keys() <= rules.headers or not all(isinstance(value, str) for value in header.values()):
        raise InvalidToken("The access token is not valid.")
    kind, kid = header.get("typ"), header.get("kid")
    if header.get("alg") not in rules.algorithms:
        raise InvalidToken("The access token is not valid.")
    if (kind.lower() if kind else kind) not in rules.types:
        raise InvalidToken("This is not an access token.")
    key = find_key(kid) if isinstance(kid, str) else None
    if key is None or key.get("use") not in {None, "sig"} or key.get("alg") not in {None, header["alg"]}:
        raise InvalidToken("The access token is not valid.")
    try:
        claims = jwt.decode(token, key, algorithms=[header["alg"]], decoder_cls=_StrictDecoder).claims
    except (JoseError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise InvalidToken("The access token is not valid.") from error
    _check_claims(claims, rules, now)
    return claims


def read_header(token: str) -> dict[str, Any]:
    """The header, unverified. Raises InvalidToken."""
    if len(token) > MAX_TOKEN_LENGTH:
        raise InvalidToken("The access token is too long.")
    if not _is_compact(token):
        raise InvalidToken("The access token is not valid.")
    header, _, signature = token.split(".")
    _decode_part(signature)
    return _read_object(header)


def read_issuer(token: str) -> str | None:
    """Who the token says issued it: unverified, good for choosing who verifies it. Raises InvalidToken."""
    read_header(token)
    issuer = _read_object(token.split(".")[1]).get("iss")
    return issuer if isinstance(issuer, str) else None


def is_number(value: object) -> bool:
    """Whether this is a NumericDate (RFC 7519, section 2): a finite JSON number, and not before the epoch."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return (isinstance(value, int) or math.isfinite(value)) and value >= 0


def _check_claims(claims: dict[str, Any], rules: TokenRules, now: float) -> None:
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    if claims.get("iss") != rules.issuer or rules.audience not in audiences:
        raise InvalidToken("The access token was not issued for this service.")
    if not is_number(claims.get("exp")) or claims["exp"] > now + MAX_LIFETIME_SECONDS:
        raise InvalidToken("The access token has no expiry.")
    if claims["exp"] <= now:
        raise ExpiredToken
    for name in ("iat", "nbf"):
        if name in claims and (not is_number(claims[name]) or claims[name] > now + LEEWAY_SECONDS):
            raise InvalidToken("The access token is not valid yet.")


class _StrictDecoder(JSONDecoder):
    """JSON without what RFC 8259 leaves to chance: no member twice, no NaN, no Infinity."""

    def __init__(self, **_arguments: Any) -> None:
        super().__init__(object_pairs_hook=_refuse_duplicates, parse_constant=_refuse_constant)


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member is there twice")
    return members


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _decode_part(part: str) -> bytes:
    """The bytes of a part in base64url. Of the spellings that mean the same bytes one is canonical; the others are
    refused, so that no two tokens differ in spelling alone."""
    try:
        content = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except ValueError as error:
        raise InvalidToken("The access token is not valid.") from error
    if base64.urlsafe_b64encode(content).rstrip(b"=") != part.encode():
        raise InvalidToken("The access token is not valid.")
    return content


def _read_object(part: str) -> dict[str, Any]:
    try:
        value = json.loads(_decode_part(part), cls=_StrictDecoder)
    except (ValueError, RecursionError) as error:
        raise InvalidToken("The access token is not valid.") from error
    if not isinstance(value, dict):
        raise InvalidToken("The access token is not valid.")
    return value
