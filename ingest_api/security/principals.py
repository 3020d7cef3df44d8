"""The principal of a request: what a route declares that is not public."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from ingest_api.security.authenticator import Authenticator
from schemas.problems import ProblemError
from schemas.tokens import CHAT, InvalidToken, Principal, bearer_token


class Unauthenticated(ProblemError):
    """There is no valid access token in the `Authorization` header."""

    code, title, status = "unauthenticated", "Unauthenticated", 401

    def __init__(self, detail: str, *, error: str | None = None) -> None:
        challenge = "Bearer" if error is None else f'Bearer error="{error}"'
        super().__init__(detail, headers={"WWW-Authenticate": challenge})


class InsufficientScope(ProblemError):
    """The access token does not carry the scope that this call needs."""

    code, title, status = "insufficient-scope", "Insufficient scope", 403

    def __init__(self, scope: str) -> None:
        challenge = f'Bearer error="insufficient_scope", scope="{scope}"'
        super().__init__(f"This call needs the scope {scope}.", headers={"WWW-Authenticate": challenge})


class RequireScope:
    """A dependency: the caller, by its bearer token (RFC 6750), if the token carries the scope. The scope `chat` is
    for users alone: a client that acts for itself never passes."""

    def __init__(self, scope: str) -> None:
        self.scope = scope

    async def __call__(self, request: Request) -> Principal:
        """Raises Unauthenticated, InsufficientScope, and what an authenticator raises."""
        return self.find_principal(request) or await self._authenticate(request)

    def find_principal(self, request: Request) -> Principal | None:
        """The caller, if its token was seen before: nothing to wait for. Raises Unauthenticated, InsufficientScope."""
        token = _read_token(request)
        try:
            principal = _authenticator(request).find_verified(token)
        except InvalidToken as error:
            raise Unauthenticated(str(error), error="invalid_token") from error
        return None if principal is None else self._check(request, principal)

    async def _authenticate(self, request: Request) -> Principal:
        try:
            principal = await _authenticator(request).authenticate(_read_token(request))
        except InvalidToken as error:
            raise Unauthenticated(str(error), error="invalid_token") from error
        return self._check(request, principal)

    def _check(self, request: Request, principal: Principal) -> Principal:
        request.scope["principal"] = principal  # the audit log tells who was refused
        if self.scope not in principal.scopes or (self.scope == CHAT and not principal.user_id):
            raise InsufficientScope(self.scope)
        return principal


def _read_token(request: Request) -> str:
    token = bearer_token(request.headers.get("authorization"))
    if token is None:
        raise Unauthenticated("Send an access token: Authorization: Bearer … (from POST /oauth/token).")
    return token


def _authenticator(request: Request) -> Authenticator:
    authenticator: Authenticator = request.app.state.chat.authenticator
    return authenticator


get_principal = RequireScope(CHAT)
Caller = Annotated[Principal, Depends(get_principal)]
"""The user who calls, for a route that needs the scope `chat`."""
