"""Plain ASGI middleware: the limits per client address, for what callers do before they are known."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from ingest_api.admission.gate import Gate
from ingest_api.admission.model import RequestClass
from ingest_api.errors import problem_response
from ingest_api.limits.addresses import Network, client_address
from schemas.problems import ProblemError

LIMITED_PATHS: Mapping[str, RequestClass] = {
    "/oauth/token": RequestClass.LOGIN,
    "/v1/users": RequestClass.COMMAND,
}


class AddressGate:
    """Refuses before anything is read."""

    def __init__(self, app: ASGIApp, *, gate: Gate, trusted: Sequence[Network]) -> None:
        self._app = app
        self._gate = gate
        self._trusted = trusted

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "http" and scope["method"] == "POST":
            request_class = LIMITED_PATHS.get(scope["path"])
            if request_class is not None:
                return self._admit(request_class, scope, receive, send)
        return self._app(scope, receive, send)

    async def _admit(self, request_class: RequestClass, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._gate.admit_address(request_class, client_address(scope, self._trusted))
        except ProblemError as error:
            await problem_response(error)(scope, receive, send)
            return
        await self._app(scope, receive, send)
