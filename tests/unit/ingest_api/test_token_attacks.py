"""Forged, altered and misused access tokens against every protected route: none is accepted."""

from __future__ import annotations

import base64
import hmac
import json
import re
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from uuid import uuid4

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jwe, jws, jwt
from joserfc.jwk import ECKey, KeySet, OctKey, RSAKey
from sqlalchemy.ext.asyncio import AsyncConnection

from ingest_api.app import PUBLIC_ROUTES, create_app
from ingest_api.command_route import CommandRoute
from ingest_api.security.authenticator import Authenticator
from ingest_api.security.declarations import UndeclaredRoute, check_declarations
from ingest_api.security.events import SecurityEvent
from ingest_api.security.external_issuers import ExternalIssuer, TrustedIssuer
from ingest_api.security.principals import Caller, RequireScope
from ingest_api.settings import Settings
from ingest_api.users.model import RegisterUser
from schemas.jwts import InvalidToken
from schemas.tokens import AUDIENCE, Principal, TokenVerifier

ISSUER, IDP = "https://chat.test", "https://idp.test"
USER_ID = str(uuid4())
KEY = ECKey.generate_key("P-256", auto_kid=True)
OTHER_KEY = ECKey.generate_key("P-256", auto_kid=True)
RSA_KEY = RSAKey.generate_key(2048, auto_kid=True)
SECRET = OctKey.generate_key(256)
PUBLIC_PEM = KEY.as_pem(private=False)
NOW = int(time.time())
LATER = NOW + 6 * 60 * 60
"""After the whole test run, which may begin long after this was imported."""
CLAIMS: dict[str, Any] = {
    "iss": ISSUER,
    "aud": AUDIENCE,
    "sub": USER_ID,
    "client_id": "chat4all",
    "scope": "chat audit:read",
    "iat": NOW,
    "exp": LATER,
    "jti": "1",
}
HEADER: dict[str, Any] = {"alg": "ES256", "typ": "at+jwt", "kid": KEY.kid}


def encode(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def forge(header: str, claims: str, key: Any = KEY, *, alg: str = "ES256") -> str:
    """Any text, signed as if it were a token: what no library would sign."""
    content = f"{encode(header.encode())}.{encode(claims.encode())}"
    algorithm = jws.JWSRegistry.algorithms[alg]
    return f"{content}.{encode(algorithm.sign(content.encode(), key))}"


def sign(header: dict[str, Any] | None = None, key: Any = KEY, *, alg: str = "ES256", **claims: Any) -> str:
    return forge(json.dumps({**HEADER, **(header or {})}), json.dumps({**CLAIMS, **claims}), key, alg=alg)


def sign_symmetrically(secret: bytes, **header: Any) -> str:
    """By HMAC-SHA-256, with secrets that no library takes."""
    content = (
        f"{encode(json.dumps({**HEADER, 'alg': 'HS256', **header}).encode())}.{encode(json.dumps(CLAIMS).encode())}"
    )
    return f"{content}.{encode(hmac.digest(secret, content.encode(), 'sha256'))}"


def without(name: str) -> str:
    return forge(json.dumps(HEADER), json.dumps({key: value for key, value in CLAIMS.items() if key != name}))


def unsigned(algorithm: object) -> str:
    return f"{encode(json.dumps({**HEADER, 'alg': algorithm}).encode())}.{encode(json.dumps(CLAIMS).encode())}."


def attacks() -> Iterator[tuple[str, str]]:
    """Names and tokens."""
    yield from attacks_on_algorithms_and_keys()
    yield from attacks_on_headers()
    yield from attacks_on_claims()
    yield from attacks_on_form()


def attacks_on_algorithms_and_keys() -> Iterator[tuple[str, str]]:
    public = KEY.as_dict(private=False)
    algorithms: list[object] = ["none", "None", "NONE", "nOnE", "", None, 0, [], {}, ["ES256"]]
    for algorithm in algorithms:
        yield f"unsigned, alg {algorithm!r}", unsigned(algorithm)
        yield f"unsigned with a signature, alg {algorithm!r}", unsigned(algorithm) + sign().rpartition(".")[2]
    for secret in (PUBLIC_PEM, PUBLIC_PEM.strip(), json.dumps(public).encode(), str(public["x"]).encode(), b"x" * 32):
        yield "HS256 with the public key", sign_symmetrically(secret)
    yield "RS256", sign({"alg": "RS256"}, RSA_KEY, alg="RS256")
    yield "RS256 that says ES256", sign(None, RSA_KEY, alg="RS256")
    yield "ES256 that says RS256", sign({"alg": "RS256"})
    yield "another key", sign(None, OTHER_KEY)
    kids: list[object] = [
        "../../../../dev/null", "/dev/null", "file:///etc/passwd", "' OR '1'='1", "x' UNION SELECT 'a", "", "\0",
        "unknown", None, 1, ["x"], {"x": 1}, OTHER_KEY.kid, f"{KEY.kid} ", "https://evil.test/keys",
    ]  # fmt: skip
    for kid in kids:
        yield f"kid {kid!r}", sign({"kid": kid}, OTHER_KEY)
        yield f"kid {kid!r}, empty secret", sign_symmetrically(b"", kid=kid)
    yield "no kid", forge(json.dumps({"alg": "ES256", "typ": "at+jwt"}), json.dumps(CLAIMS), OTHER_KEY)


def attacks_on_headers() -> Iterator[tuple[str, str]]:
    for name, value in {
        "jwk": OTHER_KEY.as_dict(private=False),
        "jku": "https://evil.test/keys",
        "x5u": "https://evil.test/chain",
        "x5c": ["MIIB"],
        "crit": ["exp"],
        "b64": False,
        "zip": "DEF",
        "cty": "JWT",
        "enc": "A256GCM",
        "invented": 1,
    }.items():
        yield f"header {name}, by another key", sign({name: value}, OTHER_KEY)
        yield f"header {name}, by our key", sign({name: value})
    yield "b64=false as RFC 7797 wants it", sign({"b64": False, "crit": ["b64"]})
    yield "an unknown critical header", sign({"crit": ["exp"], "exp": 1})
    for kind in ("JWT", "jwt", "", None, "id+jwt", "logout+jwt", "at+jwt\0", ["at+jwt"], 1):
        yield f"typ {kind!r}", sign({"typ": kind})
    yield "no typ", forge(json.dumps({"alg": "ES256", "kid": KEY.kid}), json.dumps(CLAIMS))


def attacks_on_claims() -> Iterator[tuple[str, str]]:
    for audience in ("another", "", None, [], ["another"], {"chat4all": 1}, "chat4all ", AUDIENCE.upper(), 1):
        yield f"aud {audience!r}", sign(aud=audience)
    for issuer in ("https://evil.test", "", None, [ISSUER], ISSUER + "/", ISSUER + "\0", ISSUER.upper(), IDP):
        yield f"iss {issuer!r}", sign(iss=issuer)
    for subject in ("alice", "", None, 1, [USER_ID], USER_ID.upper() + "A", USER_ID + "\n", "' OR 1=1"):
        yield f"sub {subject!r}", sign(sub=subject)
    for missing in ("exp", "aud", "iss", "sub", "client_id"):
        yield f"no {missing}", without(missing)
    moments: list[Any] = [
        NOW - 1,
        NOW - 0.5,
        0,
        -1,
        -NOW,
        10**18,
        10**400,
        1e300,
        True,
        None,
        str(LATER),
        [LATER],
        {},
    ]
    for when in moments:
        yield f"exp {str(when)[:20]!r}", sign(exp=when)
    for name in ("nbf", "iat"):
        moments = [LATER, LATER + 0.5, 10**400, 1e300, -1, -0.5, True, None, str(NOW), [NOW]]
        for when in moments:
            yield f"{name} {str(when)[:20]!r}", sign(**{name: when})
    for literal in ("NaN", "Infinity", "-Infinity", "1e999", "-1e999"):
        for name in ("exp", "nbf", "iat"):
            rest = json.dumps({key: value for key, value in CLAIMS.items() if key != name})[:-1]
            yield f"{name} {literal}", forge(json.dumps(HEADER), f'{rest}, "{name}": {literal}}}')
    yield "a claim twice", forge(json.dumps(HEADER), json.dumps(CLAIMS)[:-1] + f', "sub": "{uuid4()}"}}')
    yield "a header twice", forge(json.dumps(HEADER)[:-1] + ', "alg": "none"}', json.dumps(CLAIMS))


def attacks_on_form() -> Iterator[tuple[str, str]]:
    yield "too long", sign(padding="x" * 4096)
    yield "deeply nested", forge(json.dumps(HEADER), "[" * 1000)
    yield "a deeply nested header", forge("[" * 1000, json.dumps(CLAIMS))
    yield "claims that are no object", forge(json.dumps(HEADER), json.dumps([CLAIMS]))
    yield "claims that are no JSON", forge(json.dumps(HEADER), "{")
    yield "encrypted", jwe.encrypt_compact({"alg": "dir", "enc": "A128CBC-HS256", "kid": KEY.kid}, b"{}", SECRET)
    yield "nested", forge(json.dumps({**HEADER, "cty": "JWT"}), sign())
    yield "signed twice", forge(json.dumps(HEADER), json.dumps(sign()))
    yield "JSON serialization", json.dumps(jws.serialize_json({"protected": {"alg": "ES256"}}, "{}", KEY))
    good = sign()
    head, claims, signature = good.split(".")
    yield "detached", f"{head}..{signature}"
    yield "padded", good + "=="
    yield "no signature", f"{head}.{claims}."
    yield "a signature of zeros", f"{head}.{claims}.{encode(bytes(64))}"
    yield "a short signature", f"{head}.{claims}.{signature[:-4]}"
    yield "a DER signature", f"{head}.{claims}.{encode(b'0E' + bytes(69))}"
    yield "a fourth part", good + ".x"
    yield "two tokens", f"{good},{good}"
    yield "garbage", "é☃"
    id_token = {"iss": IDP, "aud": "chat4all", "sub": "zoe", "exp": LATER}
    yield "an issuer's token by our key", forge(json.dumps(HEADER), json.dumps(id_token))
    yield "our token by an issuer's key", sign({"kid": OTHER_KEY.kid}, OTHER_KEY)
    yield "an issuer's token, HS256", jwt.encode({"alg": "HS256", "kid": "oct"}, id_token, SECRET, algorithms=["HS256"])


class Operation(NamedTuple):
    """A protected route, as it is called."""

    method: str
    path: str


def protected_operations(app: FastAPI) -> list[Operation]:
    return [
        Operation(method.upper(), re.sub(r"\{\w+\}", str(uuid4()), path))
        for path, methods in app.openapi()["paths"].items()
        for method in methods
        if (method.upper(), path) not in PUBLIC_ROUTES
    ]


async def not_called(connection: AsyncConnection, event: SecurityEvent) -> None:
    raise AssertionError(f"{event.action} without a database")


@pytest.fixture(scope="module")
def app() -> FastAPI:
    """The application with its authenticator and nothing behind it: who gets past that fails loudly."""
    app = create_app(Settings(signing_key_file=Path("absent.json")))
    keys = [OTHER_KEY.as_dict(private=False), {**SECRET.as_dict(private=True), "kid": "oct"}, {"kty": "new"}, 1]
    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=json.dumps({"keys": keys})))
    issuer = ExternalIssuer(TrustedIssuer(issuer=IDP, jwks_url=f"{IDP}/keys"), transport=transport)
    engine: Any = None
    verifier = TokenVerifier(KeySet([KEY]), issuer=ISSUER)
    app.state.chat = SimpleNamespace(authenticator=Authenticator(verifier, engine, [issuer], not_called))
    return app


@pytest.fixture
async def http(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        yield client


async def call(http: httpx.AsyncClient, operation: Operation, token: str) -> httpx.Response:
    headers = [(b"authorization", b"Bearer " + token.encode())]
    return await http.request(*operation, json={}, headers=headers)


async def test_no_attack_is_accepted_by_any_route(app: FastAPI, http: httpx.AsyncClient) -> None:
    operations = protected_operations(app)
    assert operations
    forged = list(attacks())
    assert len(forged) > 150
    for operation in operations:
        for name, token in forged:
            answer = await call(http, operation, token)
            assert answer.status_code == 401, (operation, name, answer.text)
            assert answer.headers["content-type"] == "application/problem+json", name
            assert answer.headers["www-authenticate"].startswith("Bearer"), name
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.json()["type"].endswith(":unauthenticated"), name


async def test_the_token_that_the_attacks_are_made_from_is_accepted(app: FastAPI, http: httpx.AsyncClient) -> None:
    for operation in protected_operations(app):
        assert (await call(http, operation, sign())).status_code not in {401, 403}, operation


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_a_token_with_any_byte_changed_is_refused(data: st.DataObject) -> None:
    good = sign()
    position = data.draw(st.integers(0, len(good) - 1))
    byte = data.draw(st.characters(min_codepoint=1, max_codepoint=255).filter(lambda other: other != good[position]))
    with pytest.raises(InvalidToken):
        TokenVerifier(KeySet([KEY]), issuer=ISSUER).verify(good[:position] + byte + good[position + 1 :])


def test_every_spelling_of_the_last_character_but_one_is_refused() -> None:
    good = sign()
    verifier = TokenVerifier(KeySet([KEY]), issuer=ISSUER)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    accepted = []
    for character in alphabet:
        try:
            verifier.verify(good[:-1] + character)
        except InvalidToken:
            continue
        accepted.append(character)
    assert accepted == [good[-1]]


async def test_a_client_that_acts_for_itself_passes_no_route_of_users(app: FastAPI, http: httpx.AsyncClient) -> None:
    operation = Operation("POST", "/v1/conversations")
    assert operation in protected_operations(app)
    for token in (sign(sub="auditor", client_id="auditor"), sign(scope="audit:read")):
        answer = await call(http, operation, token)
        assert answer.status_code == 403
        assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]


async def _undeclared(command: RegisterUser) -> None: ...


async def _declared(command: RegisterUser, caller: Caller) -> None: ...


def test_a_route_that_declares_nothing_keeps_the_application_from_being_made() -> None:
    for route_class in (None, CommandRoute):
        router = APIRouter() if route_class is None else APIRouter(route_class=route_class)
        router.add_api_route("/declared", _declared, methods=["POST"])
        check_declarations([router], [])
        router.add_api_route("/undeclared", _undeclared, methods=["POST"])
        with pytest.raises(UndeclaredRoute, match="POST /undeclared neither"):
            check_declarations([router], [])
        check_declarations([router], [("POST", "/undeclared")])
        with pytest.raises(UndeclaredRoute, match="not there"):
            check_declarations([router], [("POST", "/undeclared"), ("GET", "/gone")])
        with pytest.raises(UndeclaredRoute, match="asks for a scope"):
            check_declarations([router], [("POST", "/undeclared"), ("POST", "/declared")])


async def test_a_route_may_ask_for_another_scope(app: FastAPI) -> None:
    router = APIRouter()

    async def read(principal: Principal = Depends(RequireScope("audit:read"))) -> str:  # noqa: B008
        return principal.client_id

    router.add_api_route("/audit", read)
    check_declarations([router], [])
    own = FastAPI()
    own.state.chat = app.state.chat
    own.include_router(router)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=own), base_url="http://api") as http:
        token = sign(sub="auditor", client_id="auditor", scope="audit:read")
        assert (await call(http, Operation("GET", "/audit"), token)).json() == "auditor"


@pytest.mark.parametrize("url", ["http://idp.test/keys", "ftp://idp.test", "file:///etc/passwd", "https://", "keys"])
def test_an_issuers_keys_come_by_https(url: str) -> None:
    with pytest.raises(ValueError, match="https"):
        TrustedIssuer(issuer=IDP, jwks_url=url)


def test_an_issuers_keys_may_come_from_this_machine() -> None:
    assert TrustedIssuer(issuer=IDP, jwks_url="http://127.0.0.1:9/keys").jwks_url
