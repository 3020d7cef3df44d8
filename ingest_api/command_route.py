"""The route of a command: what its endpoint asks for is read straight from the request, on the shortest way.

FastAPI describes these routes (OpenAPI comes from the endpoint's signature as ever) and this class serves them, through
FastAPI's own extension point, `get_route_handler`. Solving dependencies, parsing JSON into dictionaries and serialising
field by field took about a fifth of the time that the API spends on a message.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Mapping
from inspect import signature
from typing import Any, get_type_hints
from uuid import UUID

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from ingest_api.admission.gate import Pass
from ingest_api.admission.model import RequestClass
from ingest_api.admission.refusals import Overloaded, ShuttingDown
from ingest_api.causes import get_cause
from ingest_api.fields import field_of
from ingest_api.limits.limiter import RateLimited
from ingest_api.messages.model import MalformedItem
from ingest_api.security.authenticator import UnknownUser
from ingest_api.security.declarations import find_requirement
from ingest_api.security.external_issuers import IssuerUnavailable
from ingest_api.security.principals import InsufficientScope, Unauthenticated

REFUSALS = (
    Unauthenticated,
    InsufficientScope,
    UnknownUser,
    IssuerUnavailable,
    RateLimited,
    Overloaded,
    ShuttingDown,
)
"""Why a user's command may be refused before its endpoint sees it."""

_PARAMETERS = {"caller", "chat", "cause", "command", "request", "response"}


class CommandRoute(APIRoute):
    """Serves endpoints with these parameters, each optional: ids in the path (UUID), `command` (a pydantic model, the
    JSON body), `cause` (of the log entry), `caller`, `chat`, `request`, `response`. They return a pydantic model. Who
    may call is what the endpoint declares, as with any other route (security/declarations.py).

    `answer` is what the endpoint does with a request, without the framework's layers (dispatch.py calls it).
    `takes_turns`: it has a caller. Who has none (registration) hashes a password, which has a queue of its own."""

    takes_turns: bool
    answer: Callable[[Request], Coroutine[Any, Any, Response]]

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        names = set(signature(self.endpoint).parameters)
        path_ids = [name for name in self.param_convertors if name in names]
        if unknown := names - _PARAMETERS - set(path_ids):
            raise TypeError(f"A command's endpoint has no parameters {sorted(unknown)}")
        command: TypeAdapter[BaseModel] | None = None
        if "command" in names:
            command = TypeAdapter(get_type_hints(self.endpoint)["command"])
        requirement = find_requirement(self.dependant)
        needs_caller, needs_cause = "caller" in names, "cause" in names
        endpoint, status_code = self.endpoint, self.status_code or 200
        request_class = class_of(self.path, self.methods or set())
        others = names & {"request", "response"}

        async def handle(request: Request) -> Response:
            arguments: dict[str, Any] = {"chat": request.app.state.chat}
            if requirement is not None:
                caller = requirement.find_principal(request) or await requirement(request)
                if needs_caller:
                    arguments["caller"] = caller
                if needs_cause:
                    arguments["cause"] = await get_cause(request, caller, _read_key(request))
            for name in path_ids:
                arguments[name] = _read_id(request.path_params[name], "path", name)
            if command is not None:
                try:
                    arguments["command"] = command.validate_json(await request.body())
                except ValidationError as error:
                    raise RequestValidationError(
                        [{**item, "loc": ("body", *field_of(item["loc"]))} for item in error.errors(include_url=False)]
                    ) from error
            passed = Pass()
            if requirement is not None:
                passed = await arguments["chat"].gate.admit(
                    request_class, caller.user_id, sends_of(request_class, arguments)
                )
            answer = Response(status_code=status_code, media_type="application/json")
            arguments |= {name: {"request": request, "response": answer}[name] for name in others}
            result: BaseModel = await endpoint(**arguments)
            answer.body = result.model_dump_json().encode()
            answer.headers["content-length"] = str(len(answer.body))
            if passed.standing is not None:
                arguments["chat"].gate.settle(passed, answer)
            return answer

        self.answer = handle
        self.takes_turns = requirement is not None
        return handle


def _read_key(request: Request) -> UUID | None:
    key = request.headers.get("idempotency-key")
    return None if key is None else _read_id(key, "header", "Idempotency-Key")


def class_of(path: str, methods: Collection[str]) -> RequestClass:
    """What admission takes the commands of a route for."""
    if path.endswith("/messages/batch"):
        return RequestClass.BATCH
    is_send = path.endswith("/messages") and "POST" in methods
    return RequestClass.SEND if is_send else RequestClass.COMMAND


def sends_of(request_class: RequestClass, arguments: Mapping[str, Any]) -> Mapping[str, int] | None:
    """How many messages a command sends to which conversation; None when it is not about sending."""
    if request_class is RequestClass.SEND:
        return {arguments["conversation_id"].hex: 1}
    if request_class is RequestClass.BATCH:
        return Counter(
            message.conversation_id.hex
            for message in arguments["command"].messages
            if not isinstance(message, MalformedItem)
        )
    return None


def _read_id(text: str, place: str, name: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as error:
        raise RequestValidationError(
            [{"type": "uuid_parsing", "loc": (place, name), "msg": "Input should be a valid UUID", "input": None}]
        ) from error
