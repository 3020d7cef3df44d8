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
from ingest_api.security.principals import get_principal


class CommandRoute(APIRoute):
    """Serves endpoints with these parameters, each optional: ids in the path (UUID), `command` (a pydantic model, the
    JSON body), `caller`, `chat`, `request`, `response`. They return a pydantic model."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        hints = get_type_hints(self.endpoint)
        names = set(signature(self.endpoint).parameters)
        path_ids = [name for name in self.param_convertors if name in names]
        validator: TypeAdapter[BaseModel] = TypeAdapter(hints["command"])
        needs_caller = "caller" in names
        endpoint, status_code = self.endpoint, self.status_code or 200
        request_class = class_of(self.path, self.methods or set())
        others = names & {"request", "response"}

        async def handle(request: Request) -> Response:
            arguments: dict[str, Any] = {"chat": request.app.state.chat}
            if needs_caller:
                arguments["caller"] = await get_principal(request)
            for name in path_ids:
                arguments[name] = _read_id(request, name)
            try:
                arguments["command"] = validator.validate_json(await request.body())
            except ValidationError as error:
                raise RequestValidationError(
                    [{**item, "loc": ("body", *item["loc"])} for item in error.errors(include_url=False)]
                ) from error
            passed = Pass()
            if needs_caller:
                passed = await arguments["chat"].gate.admit(
                    request_class, arguments["caller"].user_id, sends_of(request_class, arguments)
                )
            answer = Response(status_code=status_code, media_type="application/json")
            arguments |= {name: {"request": request, "response": answer}[name] for name in others}
            result: BaseModel = await endpoint(**arguments)
            answer.body = result.model_dump_json().encode()
            answer.headers["content-length"] = str(len(answer.body))
            if passed.standing is not None:
                arguments["chat"].gate.settle(passed, answer)
            return answer

        return handle


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
        return Counter(message.conversation_id.hex for message in arguments["command"].messages)
    return None


def _read_id(request: Request, name: str) -> UUID:
    try:
        return UUID(request.path_params[name])
    except ValueError as error:
        raise RequestValidationError(
            [{"type": "uuid_parsing", "loc": ("path", name), "msg": "Input should be a valid UUID", "input": None}]
        ) from error
