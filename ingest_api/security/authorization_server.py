"""The OAuth 2.0 authorization server: Authlib's core, which is synchronous, behind one asynchronous call."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

from authlib.oauth2.rfc6749 import AuthorizationServer as AuthlibServer
from authlib.oauth2.rfc6749 import ClientMixin, InvalidGrantError, OAuth2Payload, OAuth2Request
from authlib.oauth2.rfc6749.grants import ResourceOwnerPasswordCredentialsGrant
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload
from authlib.oauth2.rfc9068 import JWTBearerTokenGenerator
from joserfc.jwk import KeySet
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from ingest_api.database import oauth_clients, transaction, users
from ingest_api.security.passwords import Passwords
from schemas.tokens import ALGORITHM, AUDIENCE, LIFETIME_SECONDS

FIRST_PARTY_CLIENT = "chat4all"
SCOPES = ("chat",)


class TokenAnswer(NamedTuple):
    """What the token endpoint answers: a status, a JSON body, headers (RFC 6749, sections 5.1 and 5.2)."""

    status: int
    body: str
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class User:
    """Who logs in, as far as Authlib needs to know."""

    user_id: str
    password_hash: str

    def get_user_id(self) -> str:
        return self.user_id


@dataclass(frozen=True, slots=True)
class Client(ClientMixin):
    """An OAuth client. The ones there are now are public: they have no secret (RFC 6749, section 2.1)."""

    client_id: str
    grant_types: tuple[str, ...]
    scopes: tuple[str, ...]

    def get_client_id(self) -> str:
        return self.client_id

    def get_allowed_scope(self, scope: str | None) -> str:
        """The requested scopes that this client may have; all of them when it asks for none."""
        wanted = scope.split() if scope else self.scopes
        return " ".join(name for name in wanted if name in self.scopes)

    def check_client_secret(self, client_secret: str) -> bool:
        return False

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method == "none"

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type in self.grant_types


class _FormRequest(OAuth2Request):
    """A token request as Authlib reads it, with the rows it will ask for, which were read before."""

    def __init__(
        self, form: Mapping[str, str], headers: Mapping[str, str], client: Client | None, user: User | None
    ) -> None:
        # Authlib refuses plain HTTP; TLS ends before this process, so the scheme here is what clients see.
        super().__init__("POST", "https://authorization-server/oauth/token", headers=headers)
        self.payload: OAuth2Payload = BasicOAuth2Payload(dict(form))
        self.known_client = client
        self.known_user = user

    @property
    def form(self) -> Any:
        return self.payload.data


class _Tokens(JWTBearerTokenGenerator):
    def __init__(self, issuer: str, keys: KeySet) -> None:
        super().__init__(issuer, alg=ALGORITHM, expires_generator=lambda _client, _grant_type: LIFETIME_SECONDS)
        self._keys = keys

    def get_jwks(self) -> KeySet:
        return self._keys

    def get_audiences(self, client: Client, user: User, scope: str) -> str:
        return AUDIENCE


def _password_grant(is_correct: Callable[[str, str | None], bool]) -> type:
    class PasswordGrant(ResourceOwnerPasswordCredentialsGrant):
        TOKEN_ENDPOINT_AUTH_METHODS = ("none",)

        def authenticate_user(self, username: str, password: str) -> User:
            user: User | None = self.request.known_user
            if not is_correct(password, user.password_hash if user else None) or user is None:
                raise InvalidGrantError("The username or the password is not correct.")
            return user

    return PasswordGrant


class _Server(AuthlibServer):
    def query_client(self, client_id: str) -> Client | None:
        raise NotImplementedError

    def save_token(self, token: dict[str, Any], request: OAuth2Request) -> None:
        """Access tokens are not stored: they prove themselves."""

    def send_signal(self, name: str, *args: Any, **kwargs: Any) -> None:
        """Nobody listens to Authlib's signals here."""

    def create_oauth2_request(self, request: _FormRequest) -> _FormRequest:
        return request

    def handle_response(self, status: int, body: Any, headers: Any) -> TokenAnswer:
        return TokenAnswer(status, json.dumps(body), dict(headers))


class AuthorizationServer:
    """Issues access tokens (RFC 9068) for the password grant (RFC 6749, section 4.3)."""

    def __init__(
        self,
        engine: AsyncEngine,
        passwords: Passwords,
        executor: ThreadPoolExecutor,
        *,
        issuer: str,
        keys: KeySet,
    ) -> None:
        self._engine = engine
        self._executor = executor
        self._server = _Server(scopes_supported=list(SCOPES))
        self._server.register_client_auth_method("none", lambda _query, request: request.known_client)
        self._server.register_grant(_password_grant(passwords.is_correct))
        self._server.register_token_generator("default", _Tokens(issuer, keys))

    async def answer_token_request(self, form: Mapping[str, str], headers: Mapping[str, str]) -> TokenAnswer:
        """The answer to a token request. A request that names no client comes from a first-party one."""
        client_id = form.get("client_id", FIRST_PARTY_CLIENT).replace("\0", "")
        username = form.get("username", "").replace("\0", "").lower()
        async with transaction(self._engine) as connection:
            client = (
                await connection.execute(select(oauth_clients).where(oauth_clients.c.client_id == client_id))
            ).one_or_none()
            user = (
                await connection.execute(
                    select(users.c.user_id, users.c.password_hash).where(users.c.username == username)
                )
            ).one_or_none()
        request = _FormRequest(
            {**form, "client_id": client_id},
            headers,
            Client(client_id, tuple(client.grant_types), tuple(client.scopes)) if client else None,
            User(user.user_id, user.password_hash) if user else None,
        )
        answer: TokenAnswer = await asyncio.get_running_loop().run_in_executor(
            self._executor, self._server.create_token_response, request
        )
        return answer
