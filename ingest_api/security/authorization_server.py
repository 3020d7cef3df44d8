"""The OAuth 2.0 authorization server: reads what Authlib's core will ask for, lets it decide, stores what it said."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from ingest_api.database import oauth_clients, transaction, users
from ingest_api.security.events import OnSecurityEvent, SecurityEvent
from ingest_api.security.oauth_core import FormRequest, Known, OAuthCore, TokenAnswer, refuse
from ingest_api.security.oauth_model import Client, Credentials, User, make_client, read_credentials
from ingest_api.security.passwords import Passwords
from ingest_api.security.refresh_tokens import (
    RefreshToken,
    Rotation,
    find_refresh_token,
    revoke_family,
    rotate,
    start_family,
)
from schemas.key_files import KeyFile


class AuthorizationServer:
    """Issues access tokens (RFC 9068) and refresh tokens, and revokes the latter (RFC 7009). Both calls raise
    DatabaseUnavailable, LoginsSaturated, and what `on_security_event` raises."""

    def __init__(
        self,
        engine: AsyncEngine,
        passwords: Passwords,
        on_security_event: OnSecurityEvent,
        *,
        issuer: str,
        keys: KeyFile,
    ) -> None:
        self._engine = engine
        self._passwords = passwords
        self._on_security_event = on_security_event
        self._core = OAuthCore(issuer=issuer, keys=keys)

    async def answer_token_request(self, form: Mapping[str, str], headers: Mapping[str, str]) -> TokenAnswer:
        """The answer to a token request."""
        grant_type = form.get("grant_type", "")
        credentials = read_credentials(form, headers)
        client, refresh_token = await self._read(credentials, grant_type, form.get("refresh_token"))
        client = await self._prove_client(client, credentials)
        user = None
        if grant_type == "password" and client is not None and client.check_grant_type("password"):
            user = await self._log_in(form, client)
        request = FormRequest(form, credentials, Known(client, user, refresh_token))
        answer: TokenAnswer = self._core.create_token_response(request)
        if request.issued is None or client is None:
            return answer
        return await self._store(request, client, answer)

    async def answer_revocation(self, form: Mapping[str, str], headers: Mapping[str, str]) -> TokenAnswer:
        """The answer to a revocation request: 200 for a token that nobody knows, too."""
        credentials = read_credentials(form, headers)
        client, refresh_token = await self._read(credentials, "refresh_token", form.get("token"))
        client = await self._prove_client(client, credentials)
        request = FormRequest(form, credentials, Known(client, refresh_token=refresh_token))
        answer: TokenAnswer = self._core.create_endpoint_response("revocation", request)
        if request.revoked is not None:
            async with transaction(self._engine) as connection:
                await revoke_family(connection, request.revoked.family_id)
            await self._tell("token.revoked", request.revoked.user_id, request.revoked.client_id)
        return answer

    async def _read(
        self, credentials: Credentials, grant_type: str, token: str | None
    ) -> tuple[Client | None, RefreshToken | None]:
        async with transaction(self._engine) as connection:
            query = select(oauth_clients).where(oauth_clients.c.client_id == credentials.client_id)
            row = (await connection.execute(query)).one_or_none()
            found = await find_refresh_token(connection, token) if token and grant_type == "refresh_token" else None
        return make_client(row, grant_type) if row else None, found

    async def _prove_client(self, client: Client | None, credentials: Credentials) -> Client | None:
        """The client, if it is a public one and sent no secret, or if the secret is its own."""
        if credentials.secret is None:
            return client if client is not None and client.secret_hash is None else None
        secret_hash = client.secret_hash if client else None
        if await self._passwords.is_correct(credentials.secret, secret_hash):
            return client
        await self._tell("client.refused", None, credentials.client_id if client else "(unknown)")
        return None

    async def _log_in(self, form: Mapping[str, str], client: Client) -> User | None:
        if not {"username", "password"} <= form.keys():
            return None
        username = form["username"].replace("\0", "").lower()
        async with transaction(self._engine) as connection:
            query = select(users.c.user_id, users.c.password_hash).where(users.c.username == username)
            row = (await connection.execute(query)).one_or_none()
        if await self._passwords.is_correct(form["password"], row.password_hash if row else None):
            return User(row.user_id) if row else None
        # A username that nobody has may be a password in the wrong field: it is not told.
        await self._tell("login.failed", row.user_id if row else None, client.client_id)
        return None

    async def _store(self, request: FormRequest, client: Client, answer: TokenAnswer) -> TokenAnswer:
        issued = request.issued or {}
        used, user, successor = request.known.refresh_token, request.known.user, issued.get("refresh_token")
        if user is not None:
            if successor is not None:
                async with transaction(self._engine) as connection:
                    await start_family(
                        connection,
                        successor,
                        user_id=user.user_id,
                        client_id=client.client_id,
                        scopes=issued["scope"].split(),
                    )
            await self._tell("login.succeeded", user.user_id, client.client_id)
        elif used is not None and successor is not None:
            async with transaction(self._engine) as connection:
                rotation = await rotate(connection, used, successor)
            return await self._answer_rotation(rotation, used, answer)
        else:
            await self._tell("token.issued", None, client.client_id)
        return answer

    async def _answer_rotation(self, rotation: Rotation, used: RefreshToken, answer: TokenAnswer) -> TokenAnswer:
        if rotation is Rotation.ROTATED:
            await self._tell("token.refreshed", used.user_id, used.client_id)
            return answer
        if rotation is Rotation.REUSED:
            await self._tell("token.reuse_detected", used.user_id, used.client_id)
        return refuse("invalid_grant", "The refresh token was used before or is revoked: log in again.")

    async def _tell(self, action: str, actor_id: str | None, client_id: str) -> None:
        await self._on_security_event(SecurityEvent(action, actor_id, {"client_id": client_id}))
