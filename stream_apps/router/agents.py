"""The I/O of the router app: asks Postgres who has a channel, as rarely as it can, and sends what is to be delivered.

Who is in a conversation changes by events that this app sees in order; which channels there are, by changes that a
revision in Postgres counts. So what was read of a conversation holds until one of the two says otherwise.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

from schemas.redis_keys import Stay
from stream_apps.log_reader import ChannelTarget
from stream_apps.producer import Outgoing
from stream_apps.records import Record
from stream_apps.router.projection import (
    MalformedMessage,
    choose_targets,
    find_doubtful,
    make_requests,
    read_message,
    sort_records,
)
from stream_apps.telemetry import RouterMetrics

KNOWN_CONVERSATIONS = 10_000


class Settings(Protocol):
    """What the app reads from Postgres (stream_apps.log_reader.LogReader says it in full)."""

    async def read_channel_revision(self) -> int: ...
    async def read_channel_targets(self, conversation_ids: Sequence[str]) -> dict[str, list[ChannelTarget]]: ...
    async def read_stays(self, conversation_id: str, user_id: str) -> list[Stay]: ...


class Outlet(Protocol):
    """Where records go that can never be applied (stream_apps.dead_letters.DeadLetters)."""

    async def send(self, record: Record, reason: str) -> None: ...


class Sender(Protocol):
    """What sends records (stream_apps.producer.Producer)."""

    async def send(self, records: Sequence[Outgoing]) -> None: ...


class Directory:
    """Who in which conversation has a channel in use. Remembers what it has read."""

    def __init__(self, settings: Settings, *, capacity: int = KNOWN_CONVERSATIONS) -> None:
        self._settings = settings
        self._capacity = capacity
        self._revision = -1
        self._known: OrderedDict[str, list[ChannelTarget]] = OrderedDict()

    def forget(self, conversation_ids: set[str] | None = None) -> None:
        """What was read of these conversations (of all) holds no longer."""
        if conversation_ids is None:
            self._known.clear()
        for conversation_id in conversation_ids or ():
            self._known.pop(conversation_id, None)

    async def look_up(self, conversation_ids: set[str]) -> dict[str, list[ChannelTarget]]:
        """The targets in each of the conversations. Raises LogUnavailable."""
        revision = await self._settings.read_channel_revision()
        if revision != self._revision:
            self._known.clear()
            self._revision = revision
        missing = sorted(conversation_ids - self._known.keys())
        found = await self._settings.read_channel_targets(missing) if missing else {}
        for conversation_id in conversation_ids:
            if conversation_id not in found:
                found[conversation_id] = self._known.pop(conversation_id)
        self._known.update(found)
        while len(self._known) > self._capacity:
            self._known.popitem(last=False)
        return found


class Router:
    """Routes batches. May be called again with a batch that failed half-way: who delivers passes over what it has."""

    def __init__(
        self,
        settings: Settings,
        sender: Sender,
        dead_letters: Outlet,
        metrics: RouterMetrics,
    ) -> None:
        self.directory = Directory(settings)
        self._settings = settings
        self._sender = sender
        self._dead_letters = dead_letters
        self._metrics = metrics

    async def route(self, records: Sequence[Record]) -> None:
        """Returns when Kafka has what these records have delivered. Raises what Postgres and Kafka raise when they are
        away, and TooManyDeadLetters."""
        mail = sort_records(records)
        self._metrics.unreadable_total.inc(mail.unreadable)
        self.directory.forget(mail.changed)
        if not mail.messages:
            return
        targets = await self.directory.look_up({envelope.conversation_id for envelope, _ in mail.messages})
        requests: list[Outgoing] = []
        malformed: list[tuple[Record, str]] = []
        for envelope, record in mail.messages:
            candidates = targets[envelope.conversation_id]
            if not candidates:
                continue
            try:
                message = read_message(envelope)
            except MalformedMessage as error:
                malformed.append((record, str(error)))
                continue
            stays = {
                (envelope.conversation_id, user_id): await self._settings.read_stays(envelope.conversation_id, user_id)
                for user_id in find_doubtful(envelope.seq, candidates)
            }
            requests += make_requests(envelope, choose_targets(envelope, message, candidates, stays))
        if requests:
            await self._sender.send(requests)
            self._metrics.requests_total.inc(len(requests))
        for record, reason in malformed:
            await self._dead_letters.send(record, reason)
            self._metrics.dead_letters_total.inc()
