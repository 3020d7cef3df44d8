"""The hub: one Pub/Sub subscription per watched channel, whatever the number of watchers, and one reconnection for
all of them. While Redis is away it looks how far the watched conversations are in Postgres, by one query per second."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from infra.telemetry.spans import Recorder
from schemas.events import ParticipantLeft, parse_event
from schemas.redis_keys import NO_SEQ, LiveFrame, decode_live_frame, live_channel, user_live_channel
from stream_apps.breaker import Breaker
from stream_apps.delivery.live.encoding import LiveEvent
from stream_apps.delivery.live.sending import begin_sending
from stream_apps.delivery.live.subscriber import Subscriber, SubscriberLost
from stream_apps.delivery.telemetry import StreamMetrics
from stream_apps.log_reader import LogReader, LogUnavailable

logger = logging.getLogger(__name__)

PING_SECONDS = 2.0
LOOK_SECONDS = 1.0
FIRST_DELAY_SECONDS = 0.05
LONGEST_DELAY_SECONDS = 1.0


class Watcher(Protocol):
    """Who is told of what happens on channels. The calls must neither block nor raise."""

    def on_event(self, conversation_id: str, event: LiveEvent) -> None:
        """A conversation's event happened."""

    def on_ephemeral(self, conversation_id: str, event: LiveEvent) -> None:
        """Something happened in a conversation that has no seq."""

    def on_joined(self, conversation_id: str, seq: int) -> None:
        """The user whom the watcher watches has joined a conversation."""

    def on_left(self, conversation_id: str, seq: int) -> None:
        """The user whom the watcher watches has left a conversation."""

    def on_progress(self, conversation_id: str, seq: int) -> None:
        """A conversation is known to have come as far as this, by other means than its events."""

    def on_restored(self) -> None:
        """Anything may have been missed until now; from now on nothing is."""


def find_leaver(event_type: str, payload: bytes) -> str | None:
    """Who left a conversation, if that is what the event says. No other event is parsed."""
    if event_type != "ParticipantLeft":
        return None
    try:
        event = parse_event(payload)
    except ValueError:
        return None
    return str(event.user_id) if isinstance(event, ParticipantLeft) else None


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """Where Redis is."""

    host: str
    port: int
    password: str = field(repr=False)


@dataclass(slots=True)
class _Channel:
    conversation_id: str | None
    watchers: set[Watcher] = field(default_factory=set)


class Hub:
    """Watches channels for sessions. While Redis is away it keeps trying; once it is back, the breaker is closed and
    every watcher told."""

    def __init__(
        self,
        address: RedisAddress,
        log: LogReader,
        *,
        timeout_seconds: float,
        breaker: Breaker,
        metrics: StreamMetrics,
        recorder: Recorder | None = None,
    ) -> None:
        self._address = address
        self._recorder = recorder
        self._log = log
        self._breaker = breaker
        self._timeout_seconds = timeout_seconds
        self._metrics = metrics
        self._channels: dict[bytes, _Channel] = {}
        self._watched: dict[Watcher, set[bytes]] = {}
        self._subscriber: Subscriber | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._told: list[LiveFrame] = []
        metrics.watched_channels.set_function(lambda: len(self._channels))

    def start(self) -> None:
        """Begins to connect."""
        self._tasks = [
            asyncio.create_task(self._run(), name="hub"),
            asyncio.create_task(self._look_out(), name="hub's lookout"),
        ]

    async def close(self) -> None:
        """Ends the connection."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def watch_user(self, watcher: Watcher, user_id: str) -> None:
        """Tells the watcher of every conversation that the user joins or leaves, from when this returns; or, if Redis
        is away, lets it know when it is back."""
        await self._watch(watcher, {user_live_channel(user_id).encode(): None})

    async def watch_conversations(self, watcher: Watcher, conversation_ids: Iterable[str]) -> None:
        """Tells the watcher of the conversations' events; otherwise as watch_user."""
        await self._watch(watcher, {live_channel(each).encode(): each for each in conversation_ids})

    def unwatch(self, watcher: Watcher) -> None:
        """Tells the watcher of nothing any more."""
        self._unwatch(watcher, self._watched.pop(watcher, set()))

    def is_watching(self, watcher: Watcher, conversation_id: str) -> bool:
        """Whether the watcher is told of the conversation's events."""
        return live_channel(conversation_id).encode() in self._watched.get(watcher, ())

    def unwatch_conversation(self, watcher: Watcher, conversation_id: str) -> None:
        """Tells the watcher of the conversation's events no more."""
        name = live_channel(conversation_id).encode()
        watched = self._watched.get(watcher, set())
        if name in watched:
            watched.discard(name)
            self._unwatch(watcher, {name})

    def _unwatch(self, watcher: Watcher, names: set[bytes]) -> None:
        unwatched = []
        for name in names:
            channel = self._channels[name]
            channel.watchers.discard(watcher)
            if not channel.watchers:
                del self._channels[name]
                unwatched.append(name)
        if self._subscriber is not None and unwatched:
            with suppress(SubscriberLost):
                self._subscriber.unsubscribe(unwatched)

    async def _watch(self, watcher: Watcher, channels: dict[bytes, str | None]) -> None:
        watched = self._watched.setdefault(watcher, set())
        added = []
        for name, conversation_id in channels.items():
            channel = self._channels.get(name)
            if channel is None:
                channel = self._channels[name] = _Channel(conversation_id)
                added.append(name)
            channel.watchers.add(watcher)
            watched.add(name)
        subscriber = self._subscriber
        if subscriber is None or not channels:
            return
        try:
            if added:
                subscriber.subscribe(added)
            await subscriber.fence(timeout_seconds=self._timeout_seconds)
        except (SubscriberLost, TimeoutError):
            # A new connection subscribes to everything, then tells every watcher.
            subscriber.close()

    def _dispatch(self, name: bytes, data: bytes) -> None:
        channel = self._channels.get(name)
        if channel is None:
            return
        try:
            if channel.conversation_id is None:
                conversation_id, verb, seq = data.decode("ascii").split(" ")
                for watcher in channel.watchers:
                    (watcher.on_left if verb == "left" else watcher.on_joined)(conversation_id, int(seq))
                return
            frame = decode_live_frame(data)
        except ValueError:
            # The next frame shows the hole that this one leaves, and it is filled from the timeline.
            logger.error("A live frame cannot be read and is left out", extra={"channel": name})
            return
        self._metrics.frames_total.inc()
        if frame.seq == NO_SEQ:
            ephemeral = LiveEvent(frame.event_type, frame.payload, NO_SEQ, subject=frame.event_id)
            for watcher in channel.watchers:
                watcher.on_ephemeral(channel.conversation_id, ephemeral)
            return
        leaver = find_leaver(frame.event_type, frame.payload)
        traceparent = frame.passage.traceparent if frame.passage is not None else None
        sending = begin_sending(self._recorder, traceparent, frame.seq)
        event = LiveEvent(frame.event_type, frame.payload, frame.seq, subject=leaver, sending=sending)
        for watcher in channel.watchers:
            watcher.on_event(channel.conversation_id, event)
        if sending is not None:
            sending.note_fan_out(len(channel.watchers))
        if not self._told:
            # Once around: then those who were woken by what was pushed have sent it.
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.call_soon, self._note_sent)
        self._told.append(frame)

    def _note_sent(self) -> None:
        told, self._told = self._told, []
        self._metrics.observe_sent(told, sent_us=time.time_ns() // 1000)

    async def _run(self) -> None:
        delay = FIRST_DELAY_SECONDS
        while True:
            try:
                subscriber = await self._connect()
            except Exception as error:  # whatever it is: a hub that stops trying would leave every stream silent
                if delay == FIRST_DELAY_SECONDS:
                    logger.warning("No live events: Redis cannot be subscribed to: %s: %s", type(error).__name__, error)
                await asyncio.sleep(delay)
                delay = min(delay * 2, LONGEST_DELAY_SECONDS)
                continue
            delay = FIRST_DELAY_SECONDS
            logger.info("Subscribed to Redis", extra={"channels": len(self._channels)})
            try:
                await self._keep(subscriber)
            finally:
                self._subscriber = None
                subscriber.close()
            logger.warning("No live events: the connection to Redis is gone")

    async def _connect(self) -> Subscriber:
        """A connection that is subscribed to every channel; all watchers know of it."""
        address, loop = self._address, asyncio.get_running_loop()
        async with asyncio.timeout(self._timeout_seconds):
            _, subscriber = await loop.create_connection(lambda: Subscriber(self._dispatch), address.host, address.port)
        try:
            if address.password:
                subscriber.authenticate(address.password)
            subscriber.subscribe(list(self._channels))
            self._subscriber = subscriber
            await subscriber.fence(timeout_seconds=self._timeout_seconds)
        except BaseException:
            self._subscriber = None
            subscriber.close()
            raise
        self._metrics.reconnects_total.inc()
        self._breaker.succeeded()
        for watcher in list(self._watched):
            watcher.on_restored()
        return subscriber

    async def _keep(self, subscriber: Subscriber) -> None:
        """Returns when the connection is gone, or is found to be dead."""
        while True:
            await asyncio.wait({subscriber.lost}, timeout=PING_SECONDS)
            if subscriber.lost.done():
                return
            try:
                await subscriber.fence(timeout_seconds=PING_SECONDS)
            except (SubscriberLost, TimeoutError):
                return

    async def _look_out(self) -> None:
        """Watches in Redis' place while that is away: later than it, but nobody is left in the dark."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if self._subscriber is not None:
                continue
            watched = [each.conversation_id for each in self._channels.values() if each.conversation_id is not None]
            try:
                last_seqs = await self._log.read_last_seqs(watched) if watched else {}
            except LogUnavailable:
                continue
            for conversation_id, seq in last_seqs.items():
                channel = self._channels.get(live_channel(conversation_id).encode())
                for watcher in channel.watchers if channel is not None else ():
                    watcher.on_progress(conversation_id, seq)
