"""The security of the API on a real PostgreSQL: grants, rotation, revocation, external issuers, clients."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from fastapi import FastAPI
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncConnection

from ingest_api.app import create_app
from ingest_api.database import metadata
from ingest_api.oauth_clients import Refused, create_client, delete_client
from ingest_api.security.authenticator import Authenticator
from ingest_api.security.authorization_server import AuthorizationServer
from ingest_api.security.events import SecurityEvent
from ingest_api.security.external_issuers import ExternalIssuer, TrustedIssuer, user_id_of
from ingest_api.settings import Settings
from ingest_api.signing_keys import KeyFiles, make_signing_keys, prune_signing_keys, rotate_signing_keys
from schemas.jwts import InvalidToken
from schemas.key_files import LOOK_AGAIN_SECONDS, KeyFile
from schemas.tokens import TokenVerifier
from tests.integration.servers import Server, login, owner_engine, start_postgres

PASSWORD = "correct horse battery"
IDP = "https://idp.test"


@pytest.fixture(scope="module")
def postgres() -> Iterator[Server]:
    with start_postgres() as server:
        yield server


@dataclass
class Api:
    """The API in the test's own event loop."""

    app: FastAPI
    http: httpx.AsyncClient
    files: KeyFiles
    username: str
    user_id: str

    async def token(self, **form: str) -> httpx.Response:
        return await self.http.post("/oauth/token", data=form)

    async def client_token(self, client_id: str, secret: str) -> httpx.Response:
        """By HTTP Basic."""
        form = {"grant_type": "client_credentials"}
        return await self.http.post("/oauth/token", data=form, auth=(client_id, secret))

    async def log_in(self) -> dict[str, Any]:
        answer = await self.token(grant_type="password", username=self.username, password=PASSWORD)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def refresh(self, token: str) -> httpx.Response:
        return await self.token(grant_type="refresh_token", refresh_token=token)

    async def create_conversation(self, token: str) -> httpx.Response:
        return await self.http.post(
            "/v1/conversations", json={"participants": []}, headers={"authorization": f"Bearer {token}"}
        )


@asynccontextmanager
async def running_api(postgres: Server, folder: Path, **settings: Any) -> AsyncIterator[Api]:
    files = KeyFiles(folder / "private.json", folder / "public.json")
    make_signing_keys(files.private, files.public)
    app = create_app(
        Settings(
            database_port=postgres.port,
            database_password=SecretStr(postgres.password),
            signing_key_file=files.private,
            **settings,
        )
    )
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://api") as http,
    ):
        username = f"user-{time.time_ns()}"
        answer = await http.post("/v1/users", json={"username": username, "password": PASSWORD})
        assert answer.status_code == 201, answer.text
        yield Api(app, http, files, username, answer.json()["user_id"])


@pytest.fixture
async def api(postgres: Server, tmp_path: Path) -> AsyncIterator[Api]:
    async with running_api(postgres, tmp_path) as running:
        yield running


async def test_a_login_gives_both_tokens_and_no_cache_keeps_them(api: Api) -> None:
    answer = await api.token(grant_type="password", username=api.username, password=PASSWORD)
    assert answer.json().keys() == {"access_token", "refresh_token", "token_type", "expires_in", "scope"}
    assert (answer.json()["expires_in"], answer.json()["scope"]) == (900, "chat")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert (await api.create_conversation(answer.json()["access_token"])).status_code == 201


async def test_a_refresh_token_is_replaced_by_each_use(api: Api) -> None:
    first = await api.log_in()
    second = await api.refresh(first["refresh_token"])
    assert second.status_code == 200
    assert second.json()["refresh_token"] != first["refresh_token"]
    assert (await api.create_conversation(second.json()["access_token"])).status_code == 201
    assert (await api.refresh(second.json()["refresh_token"])).status_code == 200


async def test_a_refresh_token_that_is_used_again_takes_its_family_with_it(api: Api) -> None:
    first = await api.log_in()
    other_login = await api.log_in()
    second = await api.refresh(first["refresh_token"])
    for stale in (first["refresh_token"], second.json()["refresh_token"], first["refresh_token"]):
        answer = await api.refresh(stale)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
    assert (await api.refresh(other_login["refresh_token"])).status_code == 200


async def test_of_concurrent_uses_one_succeeds_and_the_family_is_revoked(api: Api) -> None:
    for _ in range(5):
        token = (await api.log_in())["refresh_token"]
        answers = await asyncio.gather(*(api.refresh(token) for _ in range(4)))
        winners = [answer for answer in answers if answer.status_code == 200]
        assert len(winners) == 1
        assert (await api.refresh(winners[0].json()["refresh_token"])).status_code == 400


async def test_an_expired_family_is_refused_and_removed_by_the_next_login(api: Api, postgres: Server) -> None:
    token = (await api.log_in())["refresh_token"]
    async with await psycopg.AsyncConnection.connect(**login(postgres), autocommit=True) as owner:
        await owner.execute("UPDATE refresh_token_families SET expires_at = now() - interval '1 second'")
        assert (await api.refresh(token)).status_code == 400
        await api.log_in()
        cursor = await owner.execute(
            "SELECT count(*) FROM refresh_token_families WHERE user_id = %s AND expires_at < now()", (api.user_id,)
        )
        assert await cursor.fetchone() == (0,)


async def test_refresh_tokens_are_stored_as_hashes_alone(api: Api, postgres: Server) -> None:
    token = (await api.log_in())["refresh_token"]
    async with await psycopg.AsyncConnection.connect(**login(postgres)) as owner:
        rows = await (
            await owner.execute(
                "SELECT t::text, f::text FROM refresh_tokens t JOIN refresh_token_families f USING (family_id)"
            )
        ).fetchall()
    assert rows
    assert token not in str(rows)
    assert token.encode().hex() not in str(rows)


async def test_a_refresh_token_serves_only_the_client_that_got_it_and_only_its_scopes(api: Api) -> None:
    token = (await api.log_in())["refresh_token"]
    other = await api.token(grant_type="refresh_token", refresh_token=token, client_id="elsewhere")
    assert (other.status_code, other.json()["error"]) == (401, "invalid_client")
    wider = await api.token(grant_type="refresh_token", refresh_token=token, scope="chat audit:read")
    assert (wider.status_code, wider.json()["error"]) == (400, "invalid_scope")
    assert (await api.refresh(token)).status_code == 200


async def test_a_revoked_refresh_token_is_worthless(api: Api) -> None:
    tokens = await api.log_in()
    for token in (tokens["refresh_token"], tokens["refresh_token"], "never issued"):
        assert (await api.http.post("/oauth/revoke", data={"token": token})).status_code == 200
    assert (await api.refresh(tokens["refresh_token"])).status_code == 400
    access = await api.http.post("/oauth/revoke", data={"token": tokens["access_token"]})
    assert access.json()["error"] == "unsupported_token_type"
    assert (await api.http.post("/oauth/revoke", data={})).json()["error"] == "invalid_request"


async def test_an_unknown_user_and_a_wrong_password_are_answered_alike(api: Api) -> None:
    wrong = await api.token(grant_type="password", username=api.username, password="wrong")
    unknown = await api.token(grant_type="password", username="nobody-at-all", password="wrong")
    assert wrong.status_code == unknown.status_code == 400
    assert wrong.content == unknown.content


async def test_a_user_gets_no_scope_of_a_client(api: Api) -> None:
    answer = await api.token(grant_type="password", username=api.username, password=PASSWORD, scope="audit:read")
    assert answer.json()["error"] == "invalid_scope"


async def test_a_parameter_that_is_there_twice_is_refused(api: Api) -> None:
    answer = await api.http.post("/oauth/token", data={"grant_type": ["password", "refresh_token"]})
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


async def test_logins_beyond_the_queue_are_told_to_come_back(postgres: Server, tmp_path: Path) -> None:
    async with running_api(postgres, tmp_path, password_queue_size=2) as api:
        form = {"grant_type": "password", "username": api.username, "password": PASSWORD}
        refreshed = (await api.log_in())["refresh_token"]
        answers = await asyncio.gather(*(api.token(**form) for _ in range(12)))
        statuses = {answer.status_code for answer in answers}
        assert statuses == {200, 503}
        refused = next(answer for answer in answers if answer.status_code == 503)
        assert refused.headers["retry-after"] == "1"
        assert refused.json()["type"].endswith(":logins-saturated")
        assert (await api.refresh(refreshed)).status_code == 200
        assert (await api.token(**form)).status_code == 200


async def test_a_client_of_its_own_gets_its_scopes_and_never_a_users(api: Api, postgres: Server) -> None:
    engine = owner_engine(postgres)
    client_id = f"auditor-{time.time_ns()}"
    secret = create_client(engine, client_id, "the auditor", ["audit:read"])
    for refused in (client_id, "00000000-0000-4000-8000-000000000000", "A", "x y z"):
        with pytest.raises(Refused):
            create_client(engine, refused, "x", ["audit:read"])
    with pytest.raises(Refused):
        create_client(engine, "chatter", "x", ["chat"])
    own = {"client_id": client_id, "client_secret": secret}
    for answer in (
        await api.client_token(client_id, secret),
        await api.token(grant_type="client_credentials", **own),
    ):
        assert answer.status_code == 200, answer.text
        assert answer.json().keys() == {"access_token", "token_type", "expires_in", "scope"}
        assert (answer.json()["expires_in"], answer.json()["scope"]) == (900, "audit:read")
        principal = api.app.state.chat.verifier.verify(answer.json()["access_token"])
        assert (principal.user_id, principal.client_id) == ("", client_id)
        denied = await api.create_conversation(answer.json()["access_token"])
        assert denied.status_code == 403
        assert 'scope="chat"' in denied.headers["www-authenticate"]
    assert (await api.token(grant_type="client_credentials", scope="chat", **own)).json()["error"] == "invalid_scope"
    for auth in ((client_id, "wrong"), (client_id, ""), ("nobody", secret), ("chat4all", "")):
        answer = await api.client_token(*auth)
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
        assert answer.headers["www-authenticate"].startswith("Basic")
    public = await api.token(grant_type="client_credentials")
    assert public.json()["error"] == "invalid_client"
    password = await api.token(grant_type="password", username=api.username, password=PASSWORD, client_id=client_id)
    assert password.json()["error"] == "invalid_client"
    delete_client(engine, client_id)
    with pytest.raises(Refused):
        delete_client(engine, client_id)
    with pytest.raises(Refused):
        delete_client(engine, "chat4all")
    assert (await api.token(grant_type="client_credentials", **own)).status_code == 401
    engine.dispose()


async def test_a_rotated_key_signs_without_a_restart_and_old_tokens_live_on(api: Api) -> None:
    reader = TokenVerifier(KeyFile(api.files.public), issuer="http://127.0.0.1:8000")
    old = (await api.log_in())["access_token"]
    reader.verify(old)
    await asyncio.sleep(LOOK_AGAIN_SECONDS)
    kid = rotate_signing_keys(api.files, now=time.time())
    new = (await api.log_in())["access_token"]
    assert jwt.decode(new, KeyFile(api.files.public).keys).header["kid"] == kid
    for token in (old, new):
        assert reader.verify(token).user_id == api.user_id
        assert (await api.create_conversation(token)).status_code == 201
    published = (await api.http.get("/.well-known/jwks.json")).json()["keys"]
    assert len(published) == 2
    assert published[-1]["kid"] == kid
    assert not any("d" in key for key in published)
    assert prune_signing_keys(api.files, now=time.time()) == []
    assert len(prune_signing_keys(api.files, now=time.time() + 3600)) == 1
    await api.http.get("/.well-known/jwks.json")
    assert (await api.create_conversation(old)).status_code == 401
    assert (await api.create_conversation(new)).status_code == 201


async def test_the_metadata_names_endpoints_that_are_there(api: Api) -> None:
    metadata = (await api.http.get("/.well-known/oauth-authorization-server")).json()
    assert metadata["grant_types_supported"] == ["password", "refresh_token", "client_credentials"]
    for name in ("token_endpoint", "revocation_endpoint"):
        path = metadata[name].removeprefix(metadata["issuer"])
        assert (await api.http.post(path, data={})).status_code in {400, 401}
    assert (await api.http.get(metadata["jwks_uri"].removeprefix(metadata["issuer"]))).status_code == 200


@asynccontextmanager
async def idp_of(
    api: Api, key: ECKey, *, creates_users: bool = True
) -> AsyncIterator[tuple[list[SecurityEvent], list[str]]]:
    """Makes the API trust an issuer with this key."""
    events: list[SecurityEvent] = []
    fetches: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        fetches.append(str(request.url))
        return httpx.Response(200, content=json.dumps(KeySet([key]).as_dict(private=False)))

    async def keep(connection: AsyncConnection, event: SecurityEvent) -> None:
        events.append(event)

    trusted = TrustedIssuer(issuer=IDP, jwks_url=f"{IDP}/keys", creates_users=creates_users)
    issuer = ExternalIssuer(trusted, transport=httpx.MockTransport(answer))
    chat = api.app.state.chat
    own = chat.authenticator
    object.__setattr__(chat, "authenticator", Authenticator(chat.verifier, chat.engine, [issuer], keep))
    yield events, fetches
    await chat.authenticator.close()
    object.__setattr__(chat, "authenticator", own)


def external_token(key: ECKey, subject: str, **claims: Any) -> str:
    now = int(time.time())
    content = {"iss": IDP, "aud": "chat4all", "sub": subject, "iat": now, "exp": now + 300, "name": "Zoë", **claims}
    return jwt.encode({"alg": "ES256", "typ": "at+jwt", "kid": key.kid}, content, key)


async def test_a_user_of_a_trusted_issuer_gets_an_account_by_calling(api: Api, postgres: Server) -> None:
    key = ECKey.generate_key("P-256", auto_kid=True)
    subject = f"zoe-{time.time_ns()}"
    async with idp_of(api, key) as (events, fetches):
        answers = await asyncio.gather(*(api.create_conversation(external_token(key, subject, jti=n)) for n in "abcd"))
        assert [answer.status_code for answer in answers] == [201] * 4
        user_id = user_id_of(IDP, subject)
        assert answers[0].json()["participants"] == [user_id]
        assert [(event.action, event.actor_id) for event in events] == [("user.created", user_id)]
        assert len(fetches) == 1
        own = await api.log_in()
        assert (await api.create_conversation(own["access_token"])).status_code == 201
        for token in (
            external_token(key, subject, aud="another"),
            external_token(key, subject, exp=1),
            external_token(key, subject, iss="https://evil.test"),
            external_token(ECKey.generate_key("P-256", parameters={"kid": str(key.kid)}), subject),
        ):
            assert (await api.create_conversation(token)).status_code == 401
    password = await api.token(grant_type="password", username=user_id, password="")
    assert password.json()["error"] == "invalid_grant"


async def test_an_issuer_may_be_told_to_create_nobody(api: Api) -> None:
    key = ECKey.generate_key("P-256", auto_kid=True)
    async with idp_of(api, key, creates_users=False) as (events, _):
        answer = await api.create_conversation(external_token(key, f"stranger-{time.time_ns()}"))
    assert (answer.status_code, events) == (403, [])
    assert answer.json()["type"].endswith(":unknown-user")


async def test_strangers_and_the_absent_are_answered_by_the_same_query(api: Api) -> None:
    mine = (await api.create_conversation((await api.log_in())["access_token"])).json()["conversation_id"]
    name = f"stranger-{time.time_ns()}"
    await api.http.post("/v1/users", json={"username": name, "password": PASSWORD})
    stranger = (await api.token(grant_type="password", username=name, password=PASSWORD)).json()["access_token"]
    answers = [
        await api.http.post(
            f"/v1/conversations/{conversation_id}/messages",
            json={"body": {"type": "text", "text": "x"}},
            headers={"authorization": f"Bearer {stranger}", "x-request-id": "the-same"},
        )
        for conversation_id in (mine, "00000000-0000-4000-8000-000000000000")
    ]
    assert {answer.status_code for answer in answers} == {404}
    assert answers[0].content == answers[1].content
    assert answers[0].headers == answers[1].headers


async def test_an_unknown_key_is_fetched_for_once_in_ten_seconds() -> None:
    key, later = (ECKey.generate_key("P-256", auto_kid=True) for _ in range(2))
    now, fetches = 100.0, 0

    def answer(_request: httpx.Request) -> httpx.Response:
        nonlocal fetches
        fetches += 1
        return httpx.Response(200, content=json.dumps(KeySet([key]).as_dict(private=False)))

    trusted = TrustedIssuer(issuer=IDP, jwks_url=f"{IDP}/keys")
    issuer = ExternalIssuer(trusted, transport=httpx.MockTransport(answer), clock=lambda: now)
    await issuer.verify(external_token(key, "zoe"), now=time.time())
    for _ in range(20):
        with pytest.raises(InvalidToken):
            await issuer.verify(external_token(later, "zoe"), now=time.time())
    assert fetches == 1
    key, now = later, now + 11
    await issuer.verify(external_token(later, "zoe"), now=time.time())
    assert fetches == 2
    await issuer.close()


FORBIDDEN = [
    "INSERT INTO oauth_clients VALUES ('xyz', 'x', 'x', '{}', '{}')",
    "UPDATE oauth_clients SET client_secret_hash = NULL",
    "DELETE FROM oauth_clients",
    "UPDATE refresh_tokens SET family_id = family_id",
    "UPDATE refresh_token_families SET expires_at = now() + interval '1 year'",
    "UPDATE refresh_token_families SET scopes = '{chat,audit:read}'",
    "DELETE FROM refresh_tokens",
]


@pytest.mark.parametrize("statement", FORBIDDEN)
async def test_the_api_may_do_no_more_to_tokens_and_clients_than_it_needs(postgres: Server, statement: str) -> None:
    async with await psycopg.AsyncConnection.connect(**login(postgres, "chat_api"), autocommit=True) as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await connection.execute(statement.encode())


async def test_a_user_is_never_mistaken_for_a_client(postgres: Server) -> None:
    async with await psycopg.AsyncConnection.connect(**login(postgres), autocommit=True) as owner:
        with pytest.raises(psycopg.errors.CheckViolation):
            await owner.execute(
                "INSERT INTO oauth_clients VALUES ('00000000-0000-4000-8000-000000000000', 'x', 'x', '{}', '{}')"
            )


async def test_what_happens_is_told_before_it_is_answered(api: Api) -> None:
    told: list[tuple[str, str | None]] = []

    async def keep(event: SecurityEvent) -> None:
        told.append((event.action, event.actor_id))

    chat = api.app.state.chat
    server = AuthorizationServer(chat.engine, chat.passwords, keep, issuer=chat.issuer, keys=chat.keys)
    object.__setattr__(chat, "authorization_server", server)
    first = await api.log_in()
    await api.token(grant_type="password", username=api.username, password="wrong")
    await api.token(grant_type="password", username="nobody-at-all", password="wrong")
    await api.refresh(first["refresh_token"])
    await api.refresh(first["refresh_token"])
    second = await api.log_in()
    await api.http.post("/oauth/revoke", data={"token": second["refresh_token"]})
    assert told == [
        ("login.succeeded", api.user_id),
        ("login.failed", api.user_id),
        ("login.failed", None),
        ("token.refreshed", api.user_id),
        ("token.reuse_detected", api.user_id),
        ("login.succeeded", api.user_id),
        ("token.revoked", api.user_id),
    ]


def test_the_migrations_make_the_tables_that_the_code_declares(postgres: Server) -> None:
    engine = owner_engine(postgres)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()
