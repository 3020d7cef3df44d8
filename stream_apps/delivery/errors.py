"""The errors that several routes share, and how every error becomes a problem document (RFC 9457)."""

from __future__ import annotations

import json
import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from schemas.problems import MEDIA_TYPE, Problem, ProblemError
from stream_apps.log_reader import LogUnavailable

logger = logging.getLogger(__name__)

_ROUTER_ERRORS = {
    404: "Nothing is served at this address; GET /docs lists what is.",
    405: "This address does not take this method; the header Allow names those it takes.",
}


class MalformedRequest(ProblemError):
    """The request does not have the shape that is documented; `errors` names each field."""

    code, title, status = "malformed-request", "Malformed request", 422


class ConversationNotFound(ProblemError):
    """There is no such conversation, or the caller is not in it (which of the two is not told)."""

    code, title, status = "conversation-not-found", "Conversation not found", 404

    def __init__(self) -> None:
        super().__init__("There is no conversation of yours with this id.")


class MessageNotFound(ProblemError):
    """There is no such message in this conversation, or it is not the caller's (which of the two is not told)."""

    code, title, status = "message-not-found", "Message not found", 404

    def __init__(self) -> None:
        super().__init__("There is no message of yours with this id in this conversation.")


class ReadsUnavailable(ProblemError):
    """Redis does not hold the answer, and Postgres cannot be reached now."""

    code, title, status = "reads-unavailable", "Reads unavailable", 503

    def __init__(self) -> None:
        super().__init__("This cannot be answered now; try again shortly.", headers={"Retry-After": "1"})


def problem_response(error: ProblemError) -> Response:
    """The HTTP answer that tells of this error."""
    return Response(
        json.dumps(error.document(), ensure_ascii=False),
        status_code=error.status,
        headers=error.headers,
        media_type=MEDIA_TYPE,
    )


def problems(*kinds: type[ProblemError]) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer with these errors, for OpenAPI."""
    sentences: dict[int, list[str]] = {}
    for kind in kinds:
        sentences.setdefault(kind.status, []).append((kind.__doc__ or kind.title).split("\n", maxsplit=1)[0])
    return {
        status: {"model": Problem, "description": " ".join(lines), "content": {MEDIA_TYPE: {}}}
        for status, lines in sentences.items()
    }


def malformed(path: str, message: str) -> MalformedRequest:
    """The error that one field of the request is not as documented. `path` reads like `query.cursor`."""
    return MalformedRequest(f"{path}: {message}", errors=[{"path": path, "message": message}])


def register_error_handlers(app: FastAPI) -> None:
    """Makes problem documents of everything that a route or the router may raise."""

    @app.exception_handler(ProblemError)
    async def answer_problem(_request: Request, error: ProblemError) -> Response:
        return problem_response(error)

    @app.exception_handler(LogUnavailable)
    async def answer_unavailable(request: Request, error: LogUnavailable) -> Response:
        logger.warning("%s %s could not be answered: %s", request.method, request.url.path, error)
        return problem_response(ReadsUnavailable())

    @app.exception_handler(RequestValidationError)
    async def answer_malformed(_request: Request, error: RequestValidationError) -> Response:
        errors = [
            {"path": ".".join(str(part) for part in item["loc"]), "message": item["msg"]} for item in error.errors()
        ]
        first = errors[0]
        return problem_response(MalformedRequest(f"{first['path']}: {first['message']}", errors=errors))

    @app.exception_handler(HTTPException)
    async def answer_http(_request: Request, error: HTTPException) -> Response:
        title = HTTPStatus(error.status_code).phrase
        problem = ProblemError(
            _ROUTER_ERRORS.get(error.status_code, str(error.detail)), headers=dict(error.headers or {})
        )
        problem.status, problem.title, problem.code = error.status_code, title, title.lower().replace(" ", "-")
        return problem_response(problem)

    @app.exception_handler(Exception)
    async def answer_unexpected(request: Request, error: Exception) -> Response:
        logger.error("%s %s failed unexpectedly", request.method, request.url.path, exc_info=error)
        return problem_response(ProblemError("Something went wrong on our side; the operator's log says what."))
