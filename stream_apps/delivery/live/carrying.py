"""How what waits for a live client gets to it, whatever the transport."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

from stream_apps.delivery.live.client import End, LiveClient

FAREWELL_SECONDS = 1.0


async def carry(
    client: LiveClient, send: Callable[[bytes], Awaitable[None]], listening: Coroutine[Any, Any, None]
) -> bool:
    """Sends the client's chunks until its stream is over, while `listening` hears what it says; that returns when the
    client has left. False if the client did not take everything, because it is gone or too slow."""
    loop = asyncio.get_running_loop()
    listener = loop.create_task(listening)
    listener.add_done_callback(lambda _: client.end(End.CLIENT_LEFT))

    def lose_patience(_: object) -> None:
        patience.reschedule(loop.time() + FAREWELL_SECONDS)

    try:
        async with asyncio.timeout(None) as patience:
            client.ended.add_done_callback(lose_patience)
            try:
                while (chunk := await client.next_chunk()) is not None:
                    await send(chunk)
                    client.note_sent()
            finally:
                client.ended.remove_done_callback(lose_patience)
    except (TimeoutError, OSError):
        return False
    finally:
        listener.cancel()
        with suppress(asyncio.CancelledError):
            await listener
    return client.ended.result() is not End.CLIENT_LEFT
