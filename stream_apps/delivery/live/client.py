"""One live client: what waits for it, how long it may stay, and how it is told to go. It knows neither transports nor
conversations."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from enum import Enum
from itertools import accumulate

from schemas.tokens import Principal
from stream_apps.delivery.live.encoding import Encoding
from stream_apps.delivery.live.sending import Sending
from stream_apps.delivery.telemetry import StreamMetrics

CHUNK_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Ending:
    """How a stream ends: the WebSocket's close code (RFC 6455, section 7.4), and between how many milliseconds the
    client should wait before it comes back (None: in vain)."""

    close_code: int
    reconnect_ms: tuple[int, int] | None


class End(Enum):
    """Why a stream ends. docs/live.md tells clients."""

    CLIENT_LEFT = "client_left", Ending(1000, None)
    SHUTDOWN = "shutdown", Ending(1012, (200, 3000))
    SLOW_CLIENT = "slow_client", Ending(4408, (500, 2000))
    TOKEN_EXPIRED = "token_expired", Ending(4401, (0, 0))
    UNAUTHENTICATED = "unauthenticated", Ending(4401, None)
    INSUFFICIENT_SCOPE = "insufficient_scope", Ending(4403, None)
    TOO_MANY_FRAMES = "too_many_frames", Ending(4429, (2000, 5000))
    ERROR = "error", Ending(1011, (1000, 5000))

    def __init__(self, reason: str, ending: Ending) -> None:
        self.reason = reason
        self.close_code = ending.close_code
        self._reconnect_ms = ending.reconnect_ms

    def reconnect_in_ms(self) -> int | None:
        """How long this client should wait: others wait for another time, so that not all come back at once."""
        return None if self._reconnect_ms is None else random.randint(*self._reconnect_ms)  # noqa: S311 - no secret


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """What may wait for one client, and how often an idle one is sent something."""

    queue_events: int
    queue_bytes: int
    heartbeat_seconds: float


class LiveClient:
    """Sessions `push`, a timer calls `tick`; the transport takes `next_chunk` until it is None. `ended` is done when
    nothing more is pushed."""

    def __init__(self, principal: Principal, encoding: Encoding, limits: ClientLimits, metrics: StreamMetrics) -> None:
        self._loop = asyncio.get_running_loop()
        self._limits = limits
        self._metrics = metrics
        self._expires_at = principal.expires_at
        self._queue: list[bytes] = [encoding.preamble] if encoding.preamble else []
        self._queued_bytes = 0
        self._taken = 0
        self._sendings: list[tuple[int, Sending]] = []
        self._wanted: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._last_sent_at = self._loop.time()
        self.user_id = principal.user_id
        self.encoding = encoding
        self.ended: asyncio.Future[End] = self._loop.create_future()

    @property
    def is_slow(self) -> bool:
        """Whether half of what may wait does."""
        return len(self._queue) > self._limits.queue_events // 2 or self._queued_bytes > self._limits.queue_bytes // 2

    def push(self, data: bytes, sending: Sending | None = None) -> None:
        """Lets something wait for the client. One for whom too much waits is told to go. `sending` is told when it is
        sent."""
        if self.ended.done():
            return
        if len(self._queue) >= self._limits.queue_events or self._queued_bytes > self._limits.queue_bytes:
            self._queue.clear()
            self._queued_bytes = 0
            self._sendings.clear()
            self.end(End.SLOW_CLIENT)
            return
        self._queue.append(data)
        self._queued_bytes += len(data)
        if sending is not None and sending.take_place():
            self._sendings.append((self._taken + len(self._queue), sending))
        self._wake()

    async def wait_for_room(self) -> None:
        """Returns when the client is not slow."""
        while self.is_slow:
            if self._room is None or self._room.done():
                self._room = self._loop.create_future()
            await asyncio.shield(self._room)

    async def next_chunk(self) -> bytes | None:
        """What waits for the client (of much, a part), as soon as there is something; None when the stream is over."""
        while not self._queue:
            if self.ended.done():
                return None
            self._wanted = self._loop.create_future()
            await self._wanted
        chunk = self._take()
        self._last_sent_at = self._loop.time()
        if self._room is not None and not self._room.done() and not self.is_slow:
            self._room.set_result(None)
        return chunk

    def note_sent(self) -> None:
        """The chunks that were taken are with the transport."""
        while self._sendings and self._sendings[0][0] <= self._taken:
            self._sendings.pop(0)[1].note_sent(self.encoding.name)

    def tick(self, *, now: float) -> None:
        """Time has passed. `now` is in seconds since the epoch."""
        if self._expires_at <= now:
            self.end(End.TOKEN_EXPIRED)
        elif not self._queue and self._loop.time() - self._last_sent_at >= self._limits.heartbeat_seconds:
            self.push(self.encoding.heartbeat)

    def renew(self, principal: Principal) -> None:
        """The same user's newer token allows the client to stay for longer."""
        self._expires_at = principal.expires_at

    def end(self, end: End) -> None:
        """Ends the stream after what waits for the client. What it has not seen it gets when it resumes."""
        if self.ended.done():
            return
        self.ended.set_result(end)
        self._metrics.ended_total.labels(end.reason).inc()
        if end is not End.CLIENT_LEFT:
            self._queue.append(self.encoding.goodbye(end.reason, end.reconnect_in_ms()))
        self._wake()

    def _take(self) -> bytes:
        queue, count = self._queue, len(self._queue)
        if self._queued_bytes > CHUNK_BYTES:
            sizes = accumulate(map(len, queue))
            count = next((n for n, size in enumerate(sizes, start=1) if size >= CHUNK_BYTES), count)
        chunk = self.encoding.separator.join(queue[:count])
        del queue[:count]
        self._taken += count
        self._queued_bytes = sum(map(len, queue))
        self._metrics.sent_total.inc(count)
        return chunk

    def _wake(self) -> None:
        if self._wanted is not None and not self._wanted.done():
            self._wanted.set_result(None)
