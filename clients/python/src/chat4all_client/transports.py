"""The two ways to live events, as one: an open stream yields what the server says, until it breaks."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.typing import Subprotocol

from chat4all_client.errors import LoggedOut, Refused, Unreachable
from chat4all_client.http import REFRESH_BEFORE_SECONDS, Session, raise_for_status

SUBPROTOCOL = Subprotocol("chat4all.v1")
SILENCE_SECONDS = 45.0
"""A stream that carries nothing for so long, not even a sign of life, is broken."""
MAX_FRAME_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Position:
    """Where a stream begins: after a cursor, or after a seq of one conversation, or (neither) now."""

    conversation_id: str | None = None
    cursor: str | None = None
    after_seq: int | None = None


@dataclass(frozen=True, slots=True)
class Said:
    """Something that the server said: an event (`kind` is "event", its text unparsed over SSE), or what else there is.
    `cursor` is what to resume from after it."""

    kind: str
    data: Any
    cursor: str | None = None


class Broken(Exception):
    """The stream has ended; the server said to come back in `reconnect_in_seconds`, if it said so."""

    def __init__(self, reason: str, reconnect_in_seconds: float | None = None) -> None:
        super().__init__(reason)
        self.reconnect_in_seconds = reconnect_in_seconds


@asynccontextmanager
async def open_sse(session: Session, position: Position) -> AsyncIterator[AsyncIterator[Said]]:
    """An open stream of Server-Sent Events. Raises Broken, Refused, LoggedOut, Unreachable."""
    headers = {"Authorization": f"Bearer {await session.fresh_token()}", "Accept": "text/event-stream"}
    if position.cursor is not None:
        headers["Last-Event-ID"] = position.cursor
    parameters = {} if position.conversation_id is None else {"conversation_id": position.conversation_id}
    timeout = httpx.Timeout(SILENCE_SECONDS, connect=5.0)
    try:
        async with session.http.stream(
            "GET", f"{session.reads_url}/v1/stream", headers=headers, params=parameters, timeout=timeout
        ) as answer:
            if answer.status_code != 200:
                await answer.aread()
                if answer.status_code == 401:
                    await session.renew()
                    raise Broken("the token was not accepted")
                raise_for_status(answer)
            yield _read_sse(answer)
    except httpx.TransportError as error:
        raise Broken(f"{type(error).__name__}: {error}") from error


async def _read_sse(answer: httpx.Response) -> AsyncIterator[Said]:
    """Raises Broken, always: a stream does not end well."""
    fields: dict[str, str] = {}
    async for line in answer.aiter_lines():
        if line:
            name, _, value = line.partition(":")
            if name == "data" and "data" in fields:
                value = f"{fields['data']}\n{value.removeprefix(' ')}"
            if name:
                fields[name] = value.removeprefix(" ")
        else:
            if "data" in fields:
                yield _said(fields)
            fields = {}
    raise Broken("the stream ended")


def _said(fields: dict[str, str]) -> Said:
    kind, data = fields.get("event", "message"), json.loads(fields["data"])
    if kind == "goodbye":
        raise _broken(data)
    return Said(kind if kind in {"ready", "gap"} else "event", data, fields.get("id"))


@asynccontextmanager
async def open_websocket(session: Session, position: Position) -> AsyncIterator[AsyncIterator[Said]]:
    """An open WebSocket, which renews its token in place. Raises as open_sse."""
    address = session.reads_url.replace("http", "ws", 1) + "/v1/ws"
    try:
        async with connect(
            address,
            subprotocols=[SUBPROTOCOL],
            compression=None,
            max_size=MAX_FRAME_BYTES,
            proxy=None,
            open_timeout=5.0,
            close_timeout=1.0,
            ssl=ssl.create_default_context() if address.startswith("wss:") else None,
        ) as socket:
            await socket.send(json.dumps({"type": "authenticate", "token": await session.fresh_token()}))
            await socket.send(json.dumps(_subscribe(position)))
            renewing = asyncio.create_task(_renew(session, socket))
            try:
                yield _read_websocket(session, socket)
            finally:
                renewing.cancel()
                await asyncio.gather(renewing, return_exceptions=True)
    except (OSError, TimeoutError, ConnectionClosed, InvalidHandshake) as error:
        raise Broken(f"{type(error).__name__}: {error}") from error


def _subscribe(position: Position) -> dict[str, Any]:
    fields = {
        "conversation_id": position.conversation_id,
        "cursor": position.cursor,
        "after_seq": position.after_seq,
    }
    return {"type": "subscribe", **{name: value for name, value in fields.items() if value is not None}}


async def _renew(session: Session, socket: ClientConnection) -> None:
    while True:
        await asyncio.sleep(max(1.0, session.expires_at - time.monotonic() - REFRESH_BEFORE_SECONDS))
        try:
            await socket.send(json.dumps({"type": "authenticate", "token": await session.fresh_token()}))
        except (LoggedOut, Unreachable, ConnectionClosed):
            return


async def _read_websocket(session: Session, socket: ClientConnection) -> AsyncIterator[Said]:
    """Raises Broken, Refused."""
    while True:
        async with asyncio.timeout(SILENCE_SECONDS):
            text = await socket.recv(decode=True)
        for line in text.split("\n"):
            said = json.loads(line)
            kind = said["type"]
            if kind == "event":
                yield Said("event", said["event"], said.get("cursor"))
            elif kind == "subscribed":
                yield Said("ready", said, said.get("cursor"))
            elif kind == "gap":
                yield Said("gap", said, said.get("cursor"))
            elif kind == "error":
                if said["code"] == "unavailable":
                    raise Broken(said["detail"])
                raise Refused(404 if said["code"] == "conversation_not_found" else 422, said)
            elif kind == "goodbye":
                if said["reason"] == "unauthenticated":
                    await session.renew()
                    raise Broken("the token was not accepted")
                raise _broken(said)


def _broken(goodbye: dict[str, Any]) -> Broken:
    milliseconds = goodbye["reconnect_in_ms"]
    return Broken(goodbye["reason"], None if milliseconds is None else milliseconds / 1000)
