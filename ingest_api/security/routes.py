"""OAuth 2.0 over HTTP: the token endpoint, the public keys, the server's metadata. These routes are public."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from ingest_api.errors import DatabaseUnavailable, problems
from ingest_api.security.authorization_server import SCOPES
from ingest_api.state import Chat
from schemas.tokens import ALGORITHM, LIFETIME_SECONDS

router = APIRouter(tags=["security"])

_TOKEN_REQUEST = {
    "requestBody": {
        "required": True,
        "content": {
            "application/x-www-form-urlencoded": {
                "schema": {
                    "type": "object",
                    "required": ["grant_type", "username", "password"],
                    "properties": {
                        "grant_type": {"type": "string", "enum": ["password"]},
                        "username": {"type": "string"},
                        "password": {"type": "string", "format": "password"},
                        "client_id": {"type": "string", "default": "chat4all"},
                        "scope": {"type": "string", "default": "chat"},
                    },
                },
                "example": {
                    "grant_type": "password",
                    "username": "alice",
                    "password": "correct horse battery",
                },
            }
        },
    }
}
_TOKEN_ANSWER = {
    "access_token": "eyJ0eXAiOiJhdCtqd3QiLCJhbGciOiJFUzI1NiJ9…",
    "token_type": "Bearer",
    "expires_in": LIFETIME_SECONDS,
    "scope": "chat",
}
_TOKEN_ERROR = {"error": "invalid_grant", "error_description": "The username or the password is not correct."}


@router.post(
    "/oauth/token",
    summary="Get an access token",
    openapi_extra=_TOKEN_REQUEST,
    responses={
        200: {"description": "An access token.", "content": {"application/json": {"example": _TOKEN_ANSWER}}},
        400: {
            "description": "Refused (RFC 6749, 5.2).",
            "content": {"application/json": {"example": _TOKEN_ERROR}},
        },
        401: {"description": "Unknown client (RFC 6749, 5.2)."},
        **problems(DatabaseUnavailable),
    },
)
async def issue_token(request: Request, chat: Chat) -> Response:
    """Exchanges a username and a password for an access token that lives 15 minutes."""
    async with request.form(max_files=0, max_fields=10) as form:
        fields = {name: value for name, value in form.items() if isinstance(value, str)}
    answer = await chat.authorization_server.answer_token_request(fields, request.headers)
    return Response(answer.body, status_code=answer.status, headers=answer.headers)


@router.get("/.well-known/jwks.json", summary="The public keys")
async def get_keys(chat: Chat) -> dict[str, Any]:
    """The keys that verify access tokens (RFC 7517)."""
    return dict(chat.keys.as_dict(private=False))


@router.get("/.well-known/oauth-authorization-server", summary="The authorization server's metadata")
async def get_metadata(chat: Chat) -> dict[str, Any]:
    """Where the endpoints are and what they support (RFC 8414)."""
    return {
        "issuer": chat.issuer,
        "token_endpoint": f"{chat.issuer}/oauth/token",
        "jwks_uri": f"{chat.issuer}/.well-known/jwks.json",
        "scopes_supported": list(SCOPES),
        "response_types_supported": [],
        "grant_types_supported": ["password"],
        "token_endpoint_auth_methods_supported": ["none"],
        "access_token_signing_alg_values_supported": [ALGORITHM],
    }
