"""The same client without `await`: an event loop of its own runs in a thread, and every call waits for its answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from chat4all_client import chat as asynchronous
from chat4all_client.live import Live as AsyncLive
from chat4all_client.live import Transport
from chat4all_client.model import Accepted, Event, Gap, Message, Page

T = TypeVar("T")


class _Runner:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="chat4all client", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result. One that is interrupted (KeyboardInterrupt) is cancelled."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def iterate(self, iterator: AsyncIterator[T]) -> Iterator[T]:
        """The iterator's items, one by one."""
        while True:
            try:
                yield self.run(_next(iterator))
            except StopAsyncIteration:
                return

    def close(self) -> None:
        """Ends the loop and its thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _next(iterator: AsyncIterator[T]) -> T:
    return await anext(iterator)


class Live:
    """Live events; see chat4all_client.Live. A `with` block iterates over it."""

    def __init__(self, runner: _Runner, live: AsyncLive) -> None:
        self._runner = runner
        self._live = live

    @property
    def cursor(self) -> str | None:
        """What to resume from."""
        return self._live.cursor

    def __enter__(self) -> Self:
        self._runner.run(self._live.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runner.run(self._live.__aexit__(kind, error, trace))

    def __iter__(self) -> Iterator[Event | Gap]:
        return self._runner.iterate(self._live)


class Chat:
    """One user's client; see chat4all_client.Chat, whose methods these are."""

    def __init__(self, writes_url: str, reads_url: str | None = None, *, within_seconds: float = 30.0) -> None:
        self._runner = _Runner()
        self._chat = self._runner.run(_make(writes_url, reads_url, within_seconds))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """See chat4all_client.Chat."""
        self._runner.run(self._chat.close())
        self._runner.close()

    @property
    def user_id(self) -> str:
        """See chat4all_client.Chat."""
        return self._chat.user_id

    def register(self, username: str, password: str, *, display_name: str | None = None) -> str:
        """See chat4all_client.Chat."""
        return self._runner.run(self._chat.register(username, password, display_name=display_name))

    def login(self, username: str, password: str) -> str:
        """See chat4all_client.Chat."""
        return self._runner.run(self._chat.login(username, password))

    def log_out(self) -> None:
        """See chat4all_client.Chat."""
        self._runner.run(self._chat.log_out())

    def create_conversation(
        self, participants: Sequence[str] = (), *, title: str | None = None, conversation_id: str | None = None
    ) -> str:
        """See chat4all_client.Chat."""
        creating = self._chat.create_conversation(participants, title=title, conversation_id=conversation_id)
        return self._runner.run(creating)

    def send(
        self,
        conversation_id: str,
        body: str | Mapping[str, Any],
        *,
        reply_to: str | None = None,
        message_id: str | None = None,
        within_seconds: float | None = None,
    ) -> Accepted:
        """See chat4all_client.Chat."""
        sending = self._chat.send(
            conversation_id, body, reply_to=reply_to, message_id=message_id, within_seconds=within_seconds
        )
        return self._runner.run(sending)

    def edit(self, conversation_id: str, message_id: str, text: str) -> int:
        """See chat4all_client.Chat."""
        return self._runner.run(self._chat.edit(conversation_id, message_id, text))

    def delete(self, conversation_id: str, message_id: str) -> int:
        """See chat4all_client.Chat."""
        return self._runner.run(self._chat.delete(conversation_id, message_id))

    def add_participant(self, conversation_id: str, user_id: str) -> int:
        """See chat4all_client.Chat."""
        return self._runner.run(self._chat.add_participant(conversation_id, user_id))

    def remove_participant(self, conversation_id: str, user_id: str) -> int:
        """See chat4all_client.Chat."""
        return self._runner.run(self._chat.remove_participant(conversation_id, user_id))

    def set_title(self, conversation_id: str, title: str | None) -> int:
        """See chat4all_client.Chat."""
        return self._runner.run(self._chat.set_title(conversation_id, title))

    def advance_receipt(
        self, conversation_id: str, *, delivered_seq: int | None = None, read_seq: int | None = None
    ) -> Mapping[str, Any]:
        """See chat4all_client.Chat."""
        advancing = self._chat.advance_receipt(conversation_id, delivered_seq=delivered_seq, read_seq=read_seq)
        return self._runner.run(advancing)

    def inbox(self, *, limit: int = 50) -> Iterator[Mapping[str, Any]]:
        """See chat4all_client.Chat."""
        return self._runner.iterate(self._chat.inbox(limit=limit))

    def conversation(self, conversation_id: str) -> Mapping[str, Any]:
        """See chat4all_client.Chat."""
        return self._runner.run(self._chat.conversation(conversation_id))

    def online(self, conversation_id: str) -> list[str]:
        """See chat4all_client.Chat."""
        return self._runner.run(self._chat.online(conversation_id))

    def hops(self, conversation_id: str, message_id: str) -> Mapping[str, Any]:
        """See chat4all_client.Chat."""
        return self._runner.run(self._chat.hops(conversation_id, message_id))

    def page(
        self,
        conversation_id: str,
        *,
        after_seq: int | None = None,
        before_seq: int | None = None,
        min_seq: int | None = None,
        limit: int = 50,
    ) -> Page:
        """See chat4all_client.Chat."""
        reading = self._chat.page(
            conversation_id, after_seq=after_seq, before_seq=before_seq, min_seq=min_seq, limit=limit
        )
        return self._runner.run(reading)

    def history(self, conversation_id: str, *, after_seq: int = 0) -> Iterator[Message]:
        """See chat4all_client.Chat."""
        return self._runner.iterate(self._chat.history(conversation_id, after_seq=after_seq))

    def events(self, conversation_id: str, *, after_seq: int = 0) -> Iterator[Event]:
        """See chat4all_client.Chat."""
        return self._runner.iterate(self._chat.events(conversation_id, after_seq=after_seq))

    def live(
        self,
        conversation_id: str | None = None,
        *,
        cursor: str | None = None,
        transport: Transport = "websocket",
        fills_gaps: bool = True,
    ) -> Live:
        """See chat4all_client.Chat."""

        async def make() -> AsyncLive:
            return self._chat.live(conversation_id, cursor=cursor, transport=transport, fills_gaps=fills_gaps)

        return Live(self._runner, self._runner.run(make()))


async def _make(writes_url: str, reads_url: str | None, within_seconds: float) -> asynchronous.Chat:
    return asynchronous.Chat(writes_url, reads_url, within_seconds=within_seconds)
