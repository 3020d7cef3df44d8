"""One connection to Redis in subscribed mode, as a protocol: a chunk of bytes is handled in one go, without a task or
a wake-up per message. It knows channels and replies; what they mean is the hub's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from itertools import count
from typing import cast

import hiredis

OnMessage = Callable[[bytes, bytes], None]


class SubscriberLost(Exception):
    """The connection to Redis is gone, or Redis refused."""


class Subscriber(asyncio.Protocol):
    """`on_message(channel, data)` is called for every message. `lost` is done when the connection is gone."""

    def __init__(self, on_message: OnMessage) -> None:
        self._on_message = on_message
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport | None = None
        self._tokens = count(1)
        self._fences: dict[bytes, asyncio.Future[None]] = {}
        self._why_lost = "the connection to Redis is gone"
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def subscribe(self, channels: Iterable[bytes]) -> None:
        """Asks for the channels' messages. They come for certain from the next fence on."""
        self._send(b"SUBSCRIBE", *channels)

    def unsubscribe(self, channels: Iterable[bytes]) -> None:
        """Asks for no more messages of the channels."""
        self._send(b"UNSUBSCRIBE", *channels)

    def authenticate(self, password: str) -> None:
        """Logs in. A refusal ends the connection."""
        self._send(b"AUTH", password.encode())

    async def fence(self, *, timeout_seconds: float) -> None:
        """Returns when Redis has carried out everything that was asked before. Raises SubscriberLost, TimeoutError."""
        token = b"%d" % next(self._tokens)
        fence = self._fences[token] = asyncio.get_running_loop().create_future()
        try:
            self._send(b"PING", token)
            async with asyncio.timeout(timeout_seconds):
                await fence
        finally:
            self._fences.pop(token, None)

    def close(self) -> None:
        """Ends the connection without waiting for Redis."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        for fence in self._fences.values():
            if not fence.done():
                fence.set_exception(SubscriberLost(self._why_lost))
        if not self.lost.done():
            self.lost.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            if isinstance(reply, list):
                kind = reply[0]
                if kind == b"message":
                    self._on_message(reply[1], reply[2])
                elif kind == b"pong":
                    self._pass_fence(reply[1])
            elif isinstance(reply, Exception):
                self._why_lost = f"Redis refused: {reply}"
                self.close()
            else:
                self._pass_fence(reply)

    def _pass_fence(self, token: bytes) -> None:
        fence = self._fences.get(token)
        if fence is not None and not fence.done():
            fence.set_result(None)

    def _send(self, *command: bytes) -> None:
        if self._transport is None:
            raise SubscriberLost("there is no connection to Redis")
        if len(command) > 1:
            self._transport.write(hiredis.pack_command(command))  # type: ignore[arg-type]  # its stub allows one part
