"""OAuth 2.0 over HTTP: token endpoint, revocation, public keys, metadata. These routes are public."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from ingest_api.admission.refusals import ShuttingDown
from ingest_api.errors import DatabaseUnavailable, problems
from ingest_api.limits.limiter import RateLimited
from ingest_api.security.oauth_core import TokenAnswer, refuse
from ingest_api.security.oauth_model import AUTH_METHODS, GRANT_TYPES, SCOPES
from ingest_api.security.passwords import LoginsSaturated
from ingest_api.state import Chat
from schemas.problems import MEDIA_TYPE
from schemas.tokens import ALGORITHM, LIFETIME_SECONDS

router = APIRouter(tags=["security"])

_CLIENT_FIELDS = {
    "client_id": {"type": "string", "default": "chat4all"},
    "client_secret": {"type": "string", "format": "password", "description": "Or by HTTP Basic."},
}


def _form(required: list[str], properties: dict[str, Any], example: dict[str, str]) -> dict[str, Any]:
    schema = {"type": "object", "required": required, "properties": {**properties, **_CLIENT_FIELDS}}
    content = {"application/x-www-form-urlencoded": {"schema": schema, "example": example}}
    return {"requestBody": {"required": True, "content": content}}


_TOKEN_REQUEST = _form(
    ["grant_type"],
    {
        "grant_type": {"type": "string", "enum": list(GRANT_TYPES)},
        "username": {"type": "string", "description": "For `password`."},
        "password": {"type": "string", "format": "password", "description": "For `password`."},
        "refresh_token": {"type": "string", "description": "For `refresh_token`: the newest one."},
        "scope": {"type": "string", "description": "All that the client may have if absent."},
    },
    {"grant_type": "password", "username": "alice", "password": "correct horse battery"},
)
_REVOCATION_REQUEST = _form(
    ["token"],
    {
        "token": {"type": "string", "description": "A refresh token."},
        "token_type_hint": {"type": "string", "enum": ["refresh_token", "access_token"]},
    },
    {"token": "sTVSXHPLlJzYYJdu9kd4qO6PWVXJpL2cyFEhOSmvRsI"},
)
_TOKEN_ANSWER = {
    "access_token": "eyJ0eXAiOiJhdCtqd3QiLCJhbGciOiJFUzI1NiJ9…",
    "token_type": "Bearer",
    "expires_in": LIFETIME_SECONDS,
    "refresh_token": "sTVSXHPLlJzYYJdu9kd4qO6PWVXJpL2cyFEhOSmvRsI",
    "scope": "chat",
}
_TOKEN_ERROR = {"error": "invalid_grant", "error_description": "The username or the password is not correct."}
_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {
        "description": "Refused (RFC 6749, 5.2), or no form that can be read.",
        "content": {"application/json": {"example": _TOKEN_ERROR}, MEDIA_TYPE: {}},
    },
    401: {"description": "The client is unknown, or did not prove itself (RFC 6749, 5.2)."},
    **problems(DatabaseUnavailable, LoginsSaturated, RateLimited, ShuttingDown),
}


@router.post(
    "/oauth/token",
    summary="Get an access token",
    openapi_extra=_TOKEN_REQUEST,
    responses={
        200: {"description": "An access token.", "content": {"application/json": {"example": _TOKEN_ANSWER}}},
        **_ERRORS,
    },
)
async def issue_token(request: Request, chat: Chat) -> Response:
    """Gives an access token that lives 15 minutes for a username and a password, for a refresh token (which is
    replaced), or for a client's secret."""
    fields = await _read_form(request)
    if fields is None:
        return _respond(_REPEATED)
    return _respond(await chat.authorization_server.answer_token_request(fields, request.headers))


@router.post(
    "/oauth/revoke",
    summary="Revoke a refresh token",
    openapi_extra=_REVOCATION_REQUEST,
    responses={
        200: {"description": "It is worthless now, or was before.", "content": {"application/json": {"example": {}}}},
        **_ERRORS,
    },
)
async def revoke_token(request: Request, chat: Chat) -> Response:
    """Revokes a refresh token and all that came of the same login (RFC 7009). Access tokens expire by themselves."""
    fields = await _read_form(request)
    if fields is None:
        return _respond(_REPEATED)
    return _respond(await chat.authorization_server.answer_revocation(fields, request.headers))


@router.get("/.well-known/jwks.json", summary="The public keys")
async def get_keys(chat: Chat) -> dict[str, Any]:
    """The keys that verify access tokens (RFC 7517): the one that signs now, and those before it."""
    chat.keys.refresh()
    return dict(chat.keys.keys.as_dict(private=False))


@router.get("/.well-known/oauth-authorization-server", summary="The authorization server's metadata")
async def get_metadata(chat: Chat) -> dict[str, Any]:
    """Where the endpoints are and what they support (RFC 8414)."""
    return {
        "issuer": chat.issuer,
        "token_endpoint": f"{chat.issuer}/oauth/token",
        "token_endpoint_auth_methods_supported": list(AUTH_METHODS),
        "revocation_endpoint": f"{chat.issuer}/oauth/revoke",
        "revocation_endpoint_auth_methods_supported": list(AUTH_METHODS),
        "jwks_uri": f"{chat.issuer}/.well-known/jwks.json",
        "scopes_supported": list(SCOPES),
        "response_types_supported": [],
        "grant_types_supported": list(GRANT_TYPES),
        "access_token_signing_alg_values_supported": [ALGORITHM],
        "service_documentation": f"{chat.issuer}/docs",
    }


_REPEATED = refuse("invalid_request", "A parameter must not be there twice.")


async def _read_form(request: Request) -> dict[str, str] | None:
    """The form's fields, or None if one is there twice (RFC 6749, section 3.2)."""
    async with request.form(max_files=0, max_fields=20) as form:
        items = form.multi_items()
    fields = {name: value for name, value in items if isinstance(value, str)}
    return fields if len(fields) == len(items) else None


def _respond(answer: TokenAnswer) -> Response:
    return Response(answer.body, status_code=answer.status, headers=answer.headers)
