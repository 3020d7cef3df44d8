"""What is accepted as an access token, and what is not."""

from __future__ import annotations

import base64
import json
import time
from typing import Any
from uuid import uuid4

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OctKey

from schemas.tokens import ALGORITHM, AUDIENCE, ExpiredToken, InvalidToken, TokenVerifier, bearer_token

ISSUER = "https://chat.example"
USER_ID = str(uuid4())


@pytest.fixture(scope="module")
def key() -> ECKey:
    return ECKey.generate_key("P-256", auto_kid=True)


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    return {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": USER_ID,
        "client_id": "chat4all",
        "scope": "chat",
        "iat": now,
        "exp": now + 900,
        **changes,
    }


def sign(key: ECKey, header: dict[str, Any] | None = None, **changes: Any) -> str:
    return jwt.encode({"alg": ALGORITHM, "typ": "at+jwt", "kid": key.kid, **(header or {})}, claims(**changes), key)


def verifier(key: ECKey) -> TokenVerifier:
    return TokenVerifier(KeySet([key]), issuer=ISSUER)


def test_a_token_of_ours_speaks_for_its_subject(key: ECKey) -> None:
    principal = verifier(key).verify(sign(key))
    assert (principal.user_id, principal.client_id, principal.scopes) == (USER_ID, "chat4all", frozenset({"chat"}))


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://elsewhere.example"},
        {"aud": "another"},
        {"sub": "alice"},
        {"sub": "alice", "client_id": None},
        {"sub": None},
        {"exp": None},
        {"exp": True},
    ],
)
def test_claims_that_are_not_for_us_are_refused(key: ECKey, changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidToken):
        verifier(key).verify(sign(key, **changes))


def test_a_token_of_another_type_is_refused(key: ECKey) -> None:
    with pytest.raises(InvalidToken):
        verifier(key).verify(sign(key, {"typ": "JWT"}))


def test_a_signature_by_another_key_is_refused(key: ECKey) -> None:
    other = ECKey.generate_key("P-256", parameters={"kid": str(key.kid)})
    with pytest.raises(InvalidToken):
        verifier(key).verify(sign(other))


def test_a_token_signed_with_the_public_key_as_a_secret_is_refused(key: ECKey) -> None:
    secret = OctKey.import_key(json.dumps(key.as_dict(private=False)))
    forged = jwt.encode({"alg": "HS256", "typ": "at+jwt", "kid": key.kid}, claims(), secret, algorithms=["HS256"])
    with pytest.raises(InvalidToken):
        verifier(key).verify(forged)


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", ""])
def test_an_unsigned_token_is_refused(key: ECKey, algorithm: str) -> None:
    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    forged = f"{part({'alg': algorithm, 'typ': 'at+jwt', 'kid': key.kid})}.{part(claims())}."
    with pytest.raises(InvalidToken):
        verifier(key).verify(forged)


@pytest.mark.parametrize("token", ["", ".", "..", "a.b.c", "é", "x" * 5000, "eyJ.eyJ.eyJ"])
def test_text_that_is_no_token_is_refused(key: ECKey, token: str) -> None:
    with pytest.raises(InvalidToken):
        verifier(key).verify(token)


def test_a_token_that_was_accepted_is_refused_once_it_has_expired(key: ECKey) -> None:
    now = time.time()
    own = TokenVerifier(KeySet([key]), issuer=ISSUER, clock=lambda: now)
    token = sign(key, exp=int(now) + 60)
    own.verify(token)
    now += 61
    with pytest.raises(ExpiredToken):
        own.verify(token)


@pytest.mark.parametrize(
    ("header", "token"),
    [("Bearer abc", "abc"), ("bearer  abc ", "abc"), ("Basic abc", None), ("Bearer", None), ("", None), (None, None)],
)
def test_the_bearer_token_is_found_in_its_header(header: str | None, token: str | None) -> None:
    assert bearer_token(header) == token
