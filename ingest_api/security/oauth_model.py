"""What OAuth 2.0 knows here: scopes, clients, users, and what a form says. Nothing here waits for anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from authlib.oauth2.rfc6749 import ClientMixin
from authlib.oauth2.rfc6749.util import extract_basic_authorization

from schemas.tokens import CHAT

FIRST_PARTY_CLIENT = "chat4all"
AUDIT_READ = "audit:read"
USER_SCOPES = (CHAT,)
"""What a client may do for a user."""
CLIENT_SCOPES = (AUDIT_READ,)
"""What a client may do for itself."""
SCOPES = (*USER_SCOPES, *CLIENT_SCOPES)
GRANT_TYPES = ("password", "refresh_token", "client_credentials")
AUTH_METHODS = ("none", "client_secret_basic", "client_secret_post")


@dataclass(frozen=True, slots=True)
class User:
    """Who logs in, as far as Authlib needs to know."""

    user_id: str

    def get_user_id(self) -> str:
        return self.user_id


@dataclass(frozen=True, slots=True)
class Client(ClientMixin):
    """An OAuth client. Without a secret it is public (RFC 6749, section 2.1). `scopes` are those that it may have by
    the grant that it asks for."""

    client_id: str
    secret_hash: str | None
    grant_types: tuple[str, ...]
    scopes: tuple[str, ...]

    def get_client_id(self) -> str:
        return self.client_id

    def get_allowed_scope(self, scope: str | None) -> str | None:
        """The requested scopes, or all that it may have when it asks for none; None (refused) when that is not all
        allowed: nobody gets less than they asked for without being told."""
        wanted = tuple(scope.split()) if scope else self.scopes
        return " ".join(wanted) if wanted and set(wanted) <= set(self.scopes) else None

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return (method == "none") == (self.secret_hash is None)

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type in self.grant_types


@dataclass(frozen=True, slots=True)
class Credentials:
    """How a client says who it is: `method` is one of AUTH_METHODS."""

    client_id: str
    secret: str | None
    method: str


def read_credentials(form: Mapping[str, str], headers: Mapping[str, str]) -> Credentials:
    """The client's credentials. A request that names no client comes from a first-party one."""
    client_id = form.get("client_id", FIRST_PARTY_CLIENT).replace("\0", "")
    if "authorization" in headers:
        try:
            name, secret = extract_basic_authorization(headers)
        except ValueError:
            name = secret = None
        return Credentials((name or "").replace("\0", ""), secret or "", "client_secret_basic")
    if "client_secret" in form:
        return Credentials(client_id, form["client_secret"], "client_secret_post")
    return Credentials(client_id, None, "none")


def make_client(row: Any, grant_type: str) -> Client:
    """The client in a row of `oauth_clients`, as it is for this grant."""
    scopes = CLIENT_SCOPES if grant_type == "client_credentials" else USER_SCOPES
    return Client(
        client_id=row.client_id,
        secret_hash=row.client_secret_hash,
        grant_types=tuple(row.grant_types),
        scopes=tuple(scope for scope in row.scopes if scope in scopes),
    )
