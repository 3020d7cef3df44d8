"""The way of a command through the application: one match, one call, one answer. Everything else goes on to FastAPI.

Between a server and an endpoint FastAPI has nine layers (exit stacks, telemetry, three of error handling, two of
routers). They do nothing for a CommandRoute, and took a third of the API's time per message.
"""

from __future__ import annotations

from collections.abc import Iterable

from fastapi.exceptions import RequestValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from ingest_api.admission.refusals import Overloaded
from ingest_api.admission.turns import Turns
from ingest_api.command_route import CommandRoute
from ingest_api.errors import malformed_response, problem_response
from schemas.problems import ProblemError


class CommandDispatch:
    """ASGI middleware, the last one before FastAPI. It knows the command routes among `routes`, in their order; who is
    not found among them (another path, another method) is the framework's to answer."""

    def __init__(self, app: ASGIApp, *, routes: Iterable[BaseRoute], turns: Turns) -> None:
        self._app = app
        self._turns = turns
        self._routes: dict[str, list[CommandRoute]] = {}
        for route in routes:
            if isinstance(route, CommandRoute):
                for method in route.methods or ():
                    self._routes.setdefault(method, []).append(route)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._find(scope)
        if route is None:
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive, send)
        response = await (self._answer_in_turn(route, request) if route.takes_turns else _answer(route, request))
        await response(scope, receive, send)

    async def _answer_in_turn(self, route: CommandRoute, request: Request) -> Response:
        if not self._turns.take_now():
            try:
                await self._turns.wait()
            except Overloaded as error:
                return problem_response(error)
        try:
            return await _answer(route, request)
        finally:
            self._turns.give_back()

    def _find(self, scope: Scope) -> CommandRoute | None:
        """The route of this request. Its path parameters and the route itself are put into the scope, as a router
        does."""
        if scope["type"] == "http" and not scope.get("root_path"):
            for route in self._routes.get(scope["method"], ()):
                if match := route.path_regex.match(scope["path"]):
                    scope["path_params"] = match.groupdict()
                    scope["route"] = route
                    return route
        return None


async def _answer(route: CommandRoute, request: Request) -> Response:
    """The endpoint's answer, or the problem document of what it raised. Anything unforeseen is raised, to be logged and
    answered where all such errors are."""
    try:
        return await route.answer(request)
    except ProblemError as error:
        return problem_response(error)
    except RequestValidationError as error:
        return malformed_response(error)
