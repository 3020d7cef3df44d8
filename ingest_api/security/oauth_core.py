"""Authlib's OAuth 2.0 core with our grants. Synchronous and without I/O: what it asks for was read before, and what it
decides is stored after (authorization_server.py)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from authlib.consts import default_json_headers
from authlib.oauth2.rfc6749 import AuthorizationServer as AuthlibServer
from authlib.oauth2.rfc6749 import (
    InvalidGrantError,
    InvalidRequestError,
    OAuth2Payload,
    OAuth2Request,
    UnsupportedTokenTypeError,
)
from authlib.oauth2.rfc6749.grants import (
    ClientCredentialsGrant,
    RefreshTokenGrant,
    ResourceOwnerPasswordCredentialsGrant,
)
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload
from authlib.oauth2.rfc7009 import RevocationEndpoint
from authlib.oauth2.rfc9068 import JWTBearerTokenGenerator
from joserfc.jwk import KeySet

from ingest_api.security.oauth_model import AUTH_METHODS, SCOPES, Client, Credentials, User
from ingest_api.security.refresh_tokens import RefreshToken, new_refresh_token
from schemas.key_files import KeyFile
from schemas.tokens import ALGORITHM, AUDIENCE, LIFETIME_SECONDS


class TokenAnswer(NamedTuple):
    """What an endpoint answers: a status, a JSON body, headers (RFC 6749, sections 5.1 and 5.2)."""

    status: int
    body: str
    headers: dict[str, str]


class Known(NamedTuple):
    """What was found out about a request before Authlib sees it. `client` is there if it has proved itself, `user` if
    the password is theirs."""

    client: Client | None = None
    user: User | None = None
    refresh_token: RefreshToken | None = None


class FormRequest(OAuth2Request):
    """A request as Authlib reads it. `issued` and `revoked` are what came of it."""

    def __init__(self, form: Mapping[str, str], credentials: Credentials, known: Known) -> None:
        # Authlib refuses plain HTTP; TLS ends before this process, so the scheme here is what clients see.
        super().__init__("POST", "https://authorization-server/oauth", headers={})
        self.payload: OAuth2Payload = BasicOAuth2Payload({**form, "client_id": credentials.client_id})
        self.credentials = credentials
        self.known = known
        self.issued: dict[str, Any] | None = None
        self.revoked: RefreshToken | None = None

    @property
    def form(self) -> Any:
        return self.payload.data


class _Tokens(JWTBearerTokenGenerator):
    def __init__(self, issuer: str, keys: KeyFile) -> None:
        super().__init__(
            issuer,
            alg=ALGORITHM,
            refresh_token_generator=lambda **_: new_refresh_token(),
            expires_generator=lambda _client, _grant_type: LIFETIME_SECONDS,
        )
        self._keys = keys

    def get_jwks(self) -> KeySet:
        self._keys.refresh()
        return KeySet([self._keys.newest])

    def get_audiences(self, client: Client, user: User, scope: str) -> str:
        return AUDIENCE

    def generate(self, grant_type: str, client: Client, *arguments: Any, **named: Any) -> dict[str, Any]:
        token: dict[str, Any] = super().generate(grant_type, client, *arguments, **named)
        if not client.check_grant_type("refresh_token"):
            token.pop("refresh_token", None)
        return token


class PasswordGrant(ResourceOwnerPasswordCredentialsGrant):
    """RFC 6749, section 4.3."""

    TOKEN_ENDPOINT_AUTH_METHODS = AUTH_METHODS

    def authenticate_user(self, username: str, password: str) -> User:
        user: User | None = self.request.known.user
        if user is None:
            raise InvalidGrantError("The username or the password is not correct.")
        return user


class RotatingRefreshGrant(RefreshTokenGrant):
    """RFC 6749, section 6. Whether the token is the newest of its family is decided when it is stored."""

    TOKEN_ENDPOINT_AUTH_METHODS = AUTH_METHODS
    INCLUDE_NEW_REFRESH_TOKEN = True

    def authenticate_refresh_token(self, refresh_token: str) -> RefreshToken:
        found: RefreshToken | None = self.request.known.refresh_token
        if found is None:
            raise InvalidGrantError("The refresh token is unknown, expired or revoked: log in again.")
        return found

    def authenticate_user(self, refresh_token: RefreshToken) -> User:
        return User(refresh_token.user_id)

    def revoke_old_credential(self, refresh_token: RefreshToken) -> None:
        """Happens when the successor is stored, in the same transaction."""


class OwnClientGrant(ClientCredentialsGrant):
    """RFC 6749, section 4.4: for clients with a secret."""

    TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_basic", "client_secret_post")


class Revocation(RevocationEndpoint):
    """RFC 7009, for refresh tokens: access tokens prove themselves until they expire."""

    CLIENT_AUTH_METHODS = AUTH_METHODS

    def authenticate_token(self, request: FormRequest, client: Client) -> RefreshToken | None:
        if "token" not in request.form:
            raise InvalidRequestError("Missing 'token' in request.")
        found = request.known.refresh_token
        if found is None and request.form["token"].count(".") == 2:
            raise UnsupportedTokenTypeError("Access tokens cannot be revoked; they expire by themselves.")
        if found is not None and not found.check_client(client):
            raise InvalidGrantError("The token was issued to another client.")
        return found

    def revoke_token(self, token: RefreshToken, request: FormRequest) -> None:
        request.revoked = token


class OAuthCore(AuthlibServer):
    """The decisions of the authorization server. `create_token_response(request)` and
    `create_endpoint_response("revocation", request)` answer a FormRequest."""

    def __init__(self, *, issuer: str, keys: KeyFile) -> None:
        super().__init__(scopes_supported=list(SCOPES))
        for method in AUTH_METHODS:
            self.register_client_auth_method(method, _authenticate_by(method))
        for grant in (PasswordGrant, RotatingRefreshGrant, OwnClientGrant):
            self.register_grant(grant)
        self.register_endpoint(Revocation)
        self.register_token_generator("default", _Tokens(issuer, keys))

    def query_client(self, client_id: str) -> Client | None:
        raise NotImplementedError

    def save_token(self, token: dict[str, Any], request: FormRequest) -> None:
        request.issued = token

    def send_signal(self, name: str, *args: Any, **kwargs: Any) -> None:
        """Nobody listens to Authlib's signals here."""

    def create_oauth2_request(self, request: FormRequest) -> FormRequest:
        return request

    def handle_response(self, status: int, body: Any, headers: Any) -> TokenAnswer:
        return TokenAnswer(status, json.dumps(body), dict(headers))


def refuse(error: str, description: str) -> TokenAnswer:
    """An error answer (RFC 6749, section 5.2)."""
    body = json.dumps({"error": error, "error_description": description})
    return TokenAnswer(400, body, dict(default_json_headers))


def _authenticate_by(method: str) -> Any:
    def authenticate(_query_client: Any, request: FormRequest) -> Client | None:
        return request.known.client if request.credentials.method == method else None

    return authenticate
