"""The errors that several routes share, and how every error becomes a problem document (RFC 9457)."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from ingest_api.logs import current_request
from schemas.problems import MEDIA_TYPE, Problem, ProblemError

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 64 * 1024
_ROUTER_ERRORS = {
    404: "Nothing is served at this address; GET /docs lists what is.",
    405: "This address does not take this method; the header Allow names those it takes.",
}


class MalformedRequest(ProblemError):
    """The request does not have the shape that is documented; `errors` names each field."""

    code, title, status = "malformed-request", "Malformed request", 422


def malformed_request(errors: Sequence[Any]) -> MalformedRequest:
    """The problem with these fields, as pydantic lists them (at least one). Values are not repeated."""
    told = [{"path": ".".join(map(str, item["loc"])), "message": item["msg"]} for item in errors]
    return MalformedRequest(f"{told[0]['path']}: {told[0]['message']}", errors=told)


class BodyTooLarge(ProblemError):
    """The body is larger than 64 KiB."""

    code, title, status = "body-too-large", "Body too large", 413

    def __init__(self) -> None:
        super().__init__(f"A body may have {MAX_BODY_BYTES} bytes.", limit_bytes=MAX_BODY_BYTES)


class ConversationNotFound(ProblemError):
    """There is no such conversation, or the caller is not in it (which of the two is not told)."""

    code, title, status = "conversation-not-found", "Conversation not found", 404

    def __init__(self) -> None:
        super().__init__("There is no conversation of yours with this id.")


class DatabaseUnavailable(ProblemError):
    """Nothing was stored, or it is unknown whether it was: retry with the same id, and it is stored once."""

    code, title, status = "database-unavailable", "Database unavailable", 503

    def __init__(self, detail: str) -> None:
        super().__init__(detail, headers={"Retry-After": "1"})


def problem_response(error: ProblemError) -> Response:
    """The HTTP answer that tells of this error."""
    return Response(
        json.dumps(error.document(), ensure_ascii=False),
        status_code=error.status,
        headers=error.headers,
        media_type=MEDIA_TYPE,
    )


def malformed_response(error: RequestValidationError) -> Response:
    """The HTTP answer that names what is wrong with a request, field by field."""
    return problem_response(malformed_request(error.errors()))


def problems(*kinds: type[ProblemError]) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer with these errors, for OpenAPI."""
    sentences: dict[int, list[str]] = {}
    for kind in kinds:
        sentences.setdefault(kind.status, []).append((kind.__doc__ or kind.title).split("\n", maxsplit=1)[0])
    return {
        status: {"model": Problem, "description": " ".join(lines), "content": {MEDIA_TYPE: {}}}
        for status, lines in sentences.items()
    }


def register_error_handlers(app: FastAPI) -> None:
    """Makes problem documents of everything that a route or the router may raise."""

    @app.exception_handler(ProblemError)
    async def answer_problem(_request: Request, error: ProblemError) -> Response:
        return problem_response(error)

    @app.exception_handler(RequestValidationError)
    async def answer_malformed(_request: Request, error: RequestValidationError) -> Response:
        return malformed_response(error)

    @app.exception_handler(HTTPException)
    async def answer_http(_request: Request, error: HTTPException) -> Response:
        title = HTTPStatus(error.status_code).phrase
        detail = _ROUTER_ERRORS.get(error.status_code, str(error.detail))
        problem = ProblemError(detail, headers=dict(error.headers or {}))
        problem.status, problem.title, problem.code = error.status_code, title, title.lower().replace(" ", "-")
        return problem_response(problem)

    @app.exception_handler(Exception)
    async def answer_unexpected(request: Request, error: Exception) -> Response:
        logger.error("%s %s failed unexpectedly", request.method, request.url.path, exc_info=error)
        # This answer is given outside of every middleware.
        headers = {"X-Content-Type-Options": "nosniff"}
        if (context := current_request.get()) is not None:
            headers["X-Request-ID"] = context.request_id.decode()
        detail = "Something went wrong on our side; the operator's log says what."
        return problem_response(ProblemError(detail, headers=headers))
