"""Who a bearer token speaks for: a token of ours, or one of an external issuer that is trusted."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from ingest_api.database import transaction, users
from ingest_api.security.events import RecordIn, SecurityEvent
from ingest_api.security.external_issuers import ExternalIssuer, ExternalUser
from schemas.jwts import read_issuer
from schemas.problems import ProblemError
from schemas.tokens import Principal, TokenVerifier


class UnknownUser(ProblemError):
    """The access token is valid, but its user has no account here and does not get one by calling."""

    code, title, status = "unknown-user", "Unknown user", 403


class Authenticator:
    """Verifies tokens. The users of external issuers get their row in `users` when they are first seen."""

    def __init__(
        self,
        verifier: TokenVerifier,
        engine: AsyncEngine,
        issuers: Sequence[ExternalIssuer],
        record_in: RecordIn,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.find_verified = verifier.find_verified
        self._verifier = verifier
        self._engine = engine
        self._issuers = {issuer.name: issuer for issuer in issuers}
        self._record_in = record_in
        self._clock = clock

    async def authenticate(self, token: str) -> Principal:
        """The principal. Raises InvalidToken, UnknownUser, IssuerUnavailable, DatabaseUnavailable."""
        issuer = self._issuers.get(read_issuer(token) or "") if self._issuers else None
        if issuer is None:
            return self._verifier.verify(token)
        user = await issuer.verify(token, now=self._clock())
        await self._ensure_user(issuer, user)
        self._verifier.remember(token, user.principal)
        return user.principal

    async def _ensure_user(self, issuer: ExternalIssuer, user: ExternalUser) -> None:
        user_id = user.principal.user_id
        async with transaction(self._engine) as connection:
            known = await connection.execute(select(users.c.user_id).where(users.c.user_id == user_id))
            if known.one_or_none() is not None:
                return
            if not issuer.creates_users:
                raise UnknownUser("You have no account here; ask the operator for one.")
            # A user id is longer than any username that can be registered, and no password has an empty hash.
            created = await connection.execute(
                insert(users)
                .values(user_id=user_id, username=user_id, display_name=user.display_name, password_hash="")
                .on_conflict_do_nothing()
                .returning(users.c.user_id)
            )
            if created.one_or_none() is not None:
                await self._record_in(connection, SecurityEvent("user.created", user_id, {"issuer": issuer.name}))

    async def close(self) -> None:
        """Ends the connections to issuers."""
        for issuer in self._issuers.values():
            await issuer.close()
