"""Plain ASGI middleware: the size limit, before anything is parsed."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ingest_api.errors import MAX_BODY_BYTES, BodyTooLarge, problem_response


class BodyLimit:
    """Reads the body before the application does, and answers 413 as soon as it is over the limit. (The framework's
    own limit answers in plain text, outside of every middleware; every error of this API is a problem document.)"""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in {"GET", "HEAD", "OPTIONS"}:
            await self._app(scope, receive, send)
            return
        for name, value in scope["headers"]:
            if name == b"content-length" and (not value.isdigit() or int(value) > MAX_BODY_BYTES):
                await problem_response(BodyTooLarge())(scope, receive, send)
                return
        body = b""
        is_complete = False
        while not is_complete:
            message = await receive()
            body += message.get("body", b"")
            if len(body) > MAX_BODY_BYTES:
                await problem_response(BodyTooLarge())(scope, receive, send)
                return
            is_complete = not message.get("more_body", False)
        first: Message | None = message if message["type"] != "http.request" else {**message, "body": body}

        async def receive_again() -> Message:
            nonlocal first
            if first is None:
                return await receive()
            again, first = first, None
            return again

        await self._app(scope, receive_again, send)
