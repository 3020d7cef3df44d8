"""Plain ASGI middleware: the header that keeps browsers from guessing what an answer is."""

from __future__ import annotations

from collections.abc import Awaitable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

NO_SNIFFING = (b"x-content-type-options", b"nosniff")


class SecurityHeaders:
    """Adds `X-Content-Type-Options: nosniff`. Without a coroutine of its own: this is on the path of every message."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        def send_with_header(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), NO_SNIFFING]
            return send(message)

        return self._app(scope, receive, send_with_header)
