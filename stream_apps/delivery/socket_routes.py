"""`GET /v1/ws`: live events over a WebSocket (docs/live.md)."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from fastapi import APIRouter, Response
from starlette.datastructures import Headers
from starlette.routing import WebSocketRoute
from starlette.types import Receive, Scope, Send

from schemas.problems import ProblemError
from schemas.tokens import Principal
from stream_apps.delivery.errors import problem_response, problems
from stream_apps.delivery.live import commands
from stream_apps.delivery.live.carrying import carry
from stream_apps.delivery.live.client import End
from stream_apps.delivery.live.commands import SUBPROTOCOL
from stream_apps.delivery.live.connection import Connection
from stream_apps.delivery.live.frames import LINES
from stream_apps.delivery.live.typing_notes import TypingNotes
from stream_apps.delivery.security import InsufficientScope, Unauthenticated, authenticate
from stream_apps.delivery.state import State

router = APIRouter(prefix="/v1", tags=["live"])

AUTHENTICATE_WITHIN_SECONDS = 5.0


class UpgradeRequired(ProblemError):
    """This address is a WebSocket's: connect with the subprotocol chat4all.v1."""

    code, title, status = "upgrade-required", "Upgrade required", 426


class UnknownSubprotocol(ProblemError):
    """The handshake does not offer the subprotocol chat4all.v1."""

    code, title, status = "unknown-subprotocol", "Unknown subprotocol", 400


class ForeignOrigin(ProblemError):
    """The page that connects is of another origin than the address that it calls."""

    code, title, status = "foreign-origin", "Foreign origin", 403


class HasLeft(Exception):
    """The client closed the connection."""


@router.get(
    "/ws",
    summary="Live events over a WebSocket",
    status_code=101,
    response_class=Response,
    responses={
        **problems(UpgradeRequired, UnknownSubprotocol, ForeignOrigin),
        101: {
            "description": f"With the subprotocol `{SUBPROTOCOL}`; the token as a second one, `bearer.<token>`, or in "
            "the first frame. schemas/live.yaml (AsyncAPI) and docs/live.md describe the frames."
        },
    },
)
async def explain_upgrade() -> Response:
    """Whoever comes by plain HTTP is told how to come."""
    raise UpgradeRequired(
        f"Connect by WebSocket, with the subprotocol {SUBPROTOCOL}.", headers={"Upgrade": "websocket"}
    )


class Socket:
    """One WebSocket as the server hands it over (ASGI)."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self._receive = receive
        self._send = send

    @property
    def subprotocols(self) -> list[str]:
        """What the client offers."""
        offered: list[str] = self.scope["subprotocols"]
        return offered

    async def accept(self) -> None:
        """Takes the handshake."""
        await self._receive()
        await self._send({"type": "websocket.accept", "subprotocol": SUBPROTOCOL})

    async def refuse(self, problem: ProblemError) -> None:
        """Answers the handshake with a problem document."""
        await self._receive()
        await problem_response(problem)(self.scope, self._receive, self._send)

    async def send_text(self, data: bytes) -> None:
        """Sends one text frame. Raises OSError when the client is gone."""
        await self._send({"type": "websocket.send", "text": data.decode()})

    async def close(self, end: End) -> None:
        """Sends the close frame."""
        await self._send({"type": "websocket.close", "code": end.close_code, "reason": end.reason})

    async def receive_text(self) -> str:
        """The client's next text; "" for a frame that is not text. Raises HasLeft."""
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            raise HasLeft
        return message.get("text") or ""


async def serve(scope: Scope, receive: Receive, send: Send) -> None:
    """One connection, from handshake to close."""
    delivery: State = scope["app"].state.delivery
    socket = Socket(scope, receive, send)
    refusal = find_refusal(scope, delivery.allowed_origins)
    if refusal is not None:
        await socket.refuse(refusal)
        return
    await socket.accept()
    try:
        token = commands.token_in(socket.subprotocols) or await receive_token(socket)
        principal = authenticate(delivery.verifier, token)
    except Unauthenticated:
        await say_goodbye(socket, End.UNAUTHENTICATED)
    except InsufficientScope:
        await say_goodbye(socket, End.INSUFFICIENT_SCOPE)
    except HasLeft:
        return
    else:
        await serve_client(socket, delivery, principal)


def find_refusal(scope: Scope, allowed_origins: frozenset[str]) -> ProblemError | None:
    """Why this handshake is refused, or None."""
    headers = Headers(scope=scope)
    if not commands.is_origin_allowed(headers.get("origin"), headers.get("host"), allowed_origins):
        return ForeignOrigin("Pages of this origin may not connect; the operator can allow it.")
    if SUBPROTOCOL not in scope["subprotocols"]:
        return UnknownSubprotocol(f"Offer the subprotocol {SUBPROTOCOL}.")
    return None


async def receive_token(socket: Socket) -> str:
    """The token of the first frame. Raises Unauthenticated, HasLeft."""
    try:
        async with asyncio.timeout(AUTHENTICATE_WITHIN_SECONDS):
            frame = commands.parse_frame(await socket.receive_text())
    except (TimeoutError, commands.MalformedFrame) as error:
        raise Unauthenticated("The first frame must be `authenticate`.") from error
    if not isinstance(frame, commands.Authenticate):
        raise Unauthenticated("The first frame must be `authenticate`.")
    return frame.token


async def serve_client(socket: Socket, delivery: State, principal: Principal) -> None:
    """An authenticated connection, to its close."""
    client = delivery.streams.admit(principal, LINES)
    connection = Connection(
        client,
        delivery.streams,
        TypingNotes(delivery.tables, delivery.reads, client.user_id),
        lambda token: authenticate(delivery.verifier, token),
    )

    async def listen() -> None:
        with suppress(HasLeft):
            while True:
                await connection.take(await socket.receive_text())

    try:
        connection.welcome(expires_at=principal.expires_at, heartbeat_seconds=delivery.heartbeat_seconds)
        if await carry(client, socket.send_text, listen()):
            await socket.close(client.ended.result())
    finally:
        delivery.streams.release(client)


async def say_goodbye(socket: Socket, end: End) -> None:
    """Ends a connection that never came to be a client's."""
    with suppress(OSError):
        await socket.send_text(LINES.goodbye(end.reason, end.reconnect_in_ms()))
        await socket.close(end)


class _Endpoint:
    """`serve` as an object: Starlette takes a function for something of another shape."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await serve(scope, receive, send)


route = WebSocketRoute("/v1/ws", _Endpoint())
"""The handshake, beside what FastAPI's router describes."""
