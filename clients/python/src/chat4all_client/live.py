"""Live events that go on through broken connections: each comes once, in order, without a hole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Literal, Protocol, Self

from chat4all_client.errors import Refused, Unreachable
from chat4all_client.http import Session, delay_before
from chat4all_client.model import Event, Gap
from chat4all_client.transports import Broken, Position, Said, open_sse, open_websocket

Transport = Literal["websocket", "sse"]

MAX_WAITING = 1000
MAX_PAGE = 200


class Reads(Protocol):
    """What is read when a stream cannot tell something. (Chat can.)"""

    def events(self, conversation_id: str, *, after_seq: int = 0) -> AsyncIterator[Event]:
        """All log entries after a seq."""

    def inbox(self, *, limit: int = 50) -> AsyncIterator[Mapping[str, Any]]:
        """All conversations."""

    async def conversation(self, conversation_id: str) -> Mapping[str, Any]:
        """One conversation."""


class Live:
    """An async iterator of Event (and Gap, with `fills_gaps=False`), inside `async with`, which begins when the stream
    is open: what is accepted from then on is told.

    `cursor` is what to resume from after the event at hand; None as long as there is none (one conversation over a
    WebSocket has none: its events' seq is enough). `opened` counts how often a stream was opened, `gaps` how often the
    server could not prove continuity. It raises Refused and LoggedOut; everything else is tried again. What is taken
    too late waits here, up to 1,000 events, then at the server.
    """

    def __init__(
        self,
        session: Session,
        reads: Reads,
        *,
        conversation_id: str | None,
        cursor: str | None,
        transport: Transport,
        fills_gaps: bool,
    ) -> None:
        self._session = session
        self._reads = reads
        self._conversation_id = conversation_id
        self._open = open_websocket if transport == "websocket" else open_sse
        self._fills_gaps = fills_gaps
        self._resume_from = cursor
        self._told: dict[str, int] = {}
        self._knows_positions = False
        self._waiting: asyncio.Queue[tuple[Event | Gap, str | None] | None] = asyncio.Queue(MAX_WAITING)
        self._is_open = asyncio.Event()
        self._pumping: asyncio.Task[None] | None = None
        self.cursor = cursor
        self.opened = 0
        self.gaps = 0

    async def __aenter__(self) -> Self:
        if self._fills_gaps and self._resume_from is None:
            await self._learn_positions()
        self._pumping = asyncio.create_task(self._pump())
        opening = asyncio.create_task(self._is_open.wait())
        await asyncio.wait({opening, self._pumping}, return_when=asyncio.FIRST_COMPLETED)
        opening.cancel()
        if self._pumping.done():
            await self._pumping
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pumping is not None:
            self._pumping.cancel()
            await asyncio.gather(self._pumping, return_exceptions=True)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event | Gap:
        if self._pumping is None:
            raise RuntimeError("Iterate inside of `async with`.")
        item = None
        if not (self._pumping.done() and self._waiting.empty()):
            item = await self._waiting.get()
        if item is None:
            if not self._pumping.cancelled():
                await self._pumping
            raise StopAsyncIteration
        event, self.cursor = item
        return event

    async def _pump(self) -> None:
        try:
            await self._run()
        finally:
            with suppress(asyncio.QueueFull):  # then whoever takes what waits finds out by itself
                self._waiting.put_nowait(None)

    async def _run(self) -> None:
        attempt = 0
        while True:
            reconnect_in: float | None = None
            try:
                async with self._open(self._session, self._position()) as stream:
                    async for said in stream:
                        if said.kind == "ready":
                            attempt = 0
                            self.opened += 1
                        await self._take(said)
            except Broken as error:
                reconnect_in = error.reconnect_in_seconds
            except Unreachable as error:
                reconnect_in = error.retry_after
            attempt += 1
            await asyncio.sleep(delay_before(attempt) if reconnect_in is None else reconnect_in)

    def _position(self) -> Position:
        if self._conversation_id is None or self._open is open_sse:
            return Position(self._conversation_id, cursor=self._resume_from)
        return Position(self._conversation_id, after_seq=self._told.get(self._conversation_id))

    async def _take(self, said: Said) -> None:
        if said.kind == "ready":
            self._take_ready(said)
        elif said.kind == "gap":
            await self._take_gap(said)
        else:
            await self._take_event(Event.from_json(said.data), said.cursor)

    def _take_ready(self, said: Said) -> None:
        self._resume_from = said.cursor or self._resume_from
        after_seq = said.data.get("after_seq")
        if self._conversation_id is not None and after_seq is not None:
            self._told.setdefault(self._conversation_id, after_seq)
        if self.cursor is None:
            self.cursor = self._resume_from
        self._is_open.set()

    async def _take_event(self, event: Event, cursor: str | None) -> None:
        if event.seq is None:
            await self._tell(event)
            return
        told = self._told.get(event.conversation_id, 0 if self._knows_positions else None)
        if self._fills_gaps and told is not None and told < event.seq - 1:
            # What the server left out, or what came before this began.
            await self._fill(event.conversation_id, told)
        self._resume_from = cursor or self._resume_from
        await self._tell_if_new(event)

    async def _take_gap(self, said: Said) -> None:
        self.gaps += 1
        conversation_id, after_seq = said.data["conversation_id"], said.data["after_seq"]
        if self._fills_gaps:
            positions = (
                dict(self._told) if conversation_id is None else {conversation_id: self._told.get(conversation_id, 0)}
            )
            if conversation_id is None and self._knows_positions and self._conversation_id is None:
                async for line in self._reads.inbox(limit=MAX_PAGE):
                    positions.setdefault(line["conversation_id"], 0)
            for each, told in positions.items():
                await self._fill(each, told)
        elif conversation_id is not None:
            self._told[conversation_id] = max(self._told.get(conversation_id, 0), said.data.get("next_seq") or 0)
        self._resume_from = said.cursor or self._resume_from
        if not self._fills_gaps:
            await self._tell(Gap(conversation_id, after_seq, said.data["reason"]))

    async def _fill(self, conversation_id: str, after_seq: int) -> None:
        """Tells everything that is there after a seq."""
        with suppress(Refused):  # a conversation that this user never was in, for all the server says
            async for event in self._reads.events(conversation_id, after_seq=after_seq):
                await self._tell_if_new(event)

    async def _tell_if_new(self, event: Event) -> None:
        if event.seq is not None and event.seq > self._told.get(event.conversation_id, 0):
            self._told[event.conversation_id] = event.seq
            await self._tell(event)

    async def _tell(self, event: Event | Gap) -> None:
        await self._waiting.put((event, self._resume_from))

    async def _learn_positions(self) -> None:
        """Where every conversation is before the stream begins: what comes after that is told, by the stream or not."""
        if self._conversation_id is not None:
            self._told[self._conversation_id] = int((await self._reads.conversation(self._conversation_id))["seq"])
        else:
            async for line in self._reads.inbox(limit=MAX_PAGE):
                self._told[line["conversation_id"]] = line["seq"]
        self._knows_positions = True
