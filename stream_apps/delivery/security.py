"""The principal of a request: the dependency that every route has unless it is public."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from schemas.problems import ProblemError
from schemas.tokens import CHAT, InvalidToken, Principal, TokenVerifier, bearer_token
from stream_apps.delivery.state import State


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


def authenticate(verifier: TokenVerifier, token: str) -> Principal:
    """The user whom the token speaks for, with the scope `chat`. Raises Unauthenticated, InsufficientScope."""
    try:
        principal = verifier.verify(token)
    except InvalidToken as error:
        raise Unauthenticated(str(error), error="invalid_token") from error
    if CHAT not in principal.scopes or not principal.user_id:
        raise InsufficientScope(CHAT)
    return principal


async def get_principal(request: Request) -> Principal:
    """The user who calls, by its bearer token (RFC 6750)."""
    token = bearer_token(request.headers.get("authorization"))
    if token is None:
        raise Unauthenticated("Send an access token: Authorization: Bearer … (from POST /oauth/token).")
    state: State = request.app.state.delivery
    return authenticate(state.verifier, token)


Caller = Annotated[Principal, Depends(get_principal)]
