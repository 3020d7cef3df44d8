"""The route of a command: what its endpoint asks for is read straight from the request, on the shortest way.

FastAPI describes these routes (OpenAPI comes from the endpoint's signature as ever) and this class serves them, through
FastAPI's own extension point, `get_route_handler`. Solving dependencies, parsing JSON into dictionaries and serialising
field by field took about a fifth of the time that the API spends on a message.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from inspect import signature
from typing import Any, get_type_hints
from uuid import UUID

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from ingest_api.security.declarations import find_requirement


class CommandRoute(APIRoute):
    """Serves endpoints with these parameters, each optional: ids in the path (UUID), `command` (a pydantic model, the
    JSON body), `caller`, `chat`, `request`, `response`. They return a pydantic model. Who may call is what the endpoint
    declares, as with any other route (ingest_api/security/declarations.py)."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        hints = get_type_hints(self.endpoint)
        names = set(signature(self.endpoint).parameters)
        path_ids = [name for name in self.param_convertors if name in names]
        validator: TypeAdapter[BaseModel] = TypeAdapter(hints["command"])
        requirement = find_requirement(self.dependant)
        needs_caller = "caller" in names
        endpoint, status_code = self.endpoint, self.status_code or 200
        others = names & {"request", "response"}

        async def handle(request: Request) -> Response:
            arguments: dict[str, Any] = {"chat": request.app.state.chat}
            if requirement is not None:
                caller = requirement.find_principal(request) or await requirement(request)
                if needs_caller:
                    arguments["caller"] = caller
            for name in path_ids:
                arguments[name] = _read_id(request, name)
            try:
                arguments["command"] = validator.validate_json(await request.body())
            except ValidationError as error:
                raise RequestValidationError(
                    [{**item, "loc": ("body", *item["loc"])} for item in error.errors(include_url=False)]
                ) from error
            answer = Response(status_code=status_code, media_type="application/json")
            arguments |= {name: {"request": request, "response": answer}[name] for name in others}
            result: BaseModel = await endpoint(**arguments)
            answer.body = result.model_dump_json().encode()
            answer.headers["content-length"] = str(len(answer.body))
            return answer

        return handle


def _read_id(request: Request, name: str) -> UUID:
    try:
        return UUID(request.path_params[name])
    except ValueError as error:
        raise RequestValidationError(
            [{"type": "uuid_parsing", "loc": ("path", name), "msg": "Input should be a valid UUID", "input": None}]
        ) from error
