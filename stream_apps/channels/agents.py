"""The agents of the channels app: what comes by Kafka is noted in Postgres, and whoever delivers it is woken."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from pydantic import ValidationError

from schemas.delivery_events import DeliveryRequested
from schemas.user_events import ChannelSet, parse_user_event
from stream_apps.channels.challenges import Challenges
from stream_apps.channels.store import Request, Store
from stream_apps.records import Record
from stream_apps.telemetry import ChannelMetrics


class Outlet(Protocol):
    """Where records go that can never be applied (stream_apps.dead_letters.DeadLetters)."""

    async def send(self, record: Record, reason: str) -> None: ...


class Wakeable(Protocol):
    """Who delivers (stream_apps.channels.dispatcher.Dispatcher)."""

    def wake(self, channel_ids: Iterable[str]) -> None: ...


class Requests:
    """Takes batches of channel.<name>. May be called again with a batch that failed half-way."""

    def __init__(self, store: Store, dispatcher: Wakeable, dead_letters: Outlet, metrics: ChannelMetrics) -> None:
        self._store = store
        self._dispatcher = dispatcher
        self._dead_letters = dead_letters
        self._metrics = metrics

    async def take(self, records: Sequence[Record]) -> None:
        """Returns when Postgres has what is to be delivered. Raises LogUnavailable, and what dead letters raise."""
        readable: list[tuple[Record, DeliveryRequested]] = []
        unreadable: list[tuple[Record, str]] = []
        for record in records:
            try:
                readable.append((record, DeliveryRequested.model_validate_json(record.value or b"")))
            except ValidationError as error:
                unreadable.append((record, _reason(error)))
        if requests := merge(readable):
            self._dispatcher.wake(await self._store.note_requests(requests))
        for record, reason in unreadable:
            await self._dead_letters.send(record, reason)
            self._metrics.dead_letters_total.inc()


class UserEvents:
    """Takes batches of user.events: a channel that was set is sent its verification code."""

    def __init__(self, challenges: Challenges, dead_letters: Outlet, metrics: ChannelMetrics) -> None:
        self._challenges = challenges
        self._dead_letters = dead_letters
        self._metrics = metrics

    async def take(self, records: Sequence[Record]) -> None:
        """Returns when the codes are on their way (Postgres remembers which were sent). Raises what dead letters
        raise."""
        for record in records:
            try:
                event = parse_user_event(record.value or b"")
            except ValidationError as error:
                await self._dead_letters.send(record, _reason(error))
                self._metrics.dead_letters_total.inc()
                continue
            if isinstance(event, ChannelSet):
                self._challenges.send(str(event.channel_id))


def merge(requested: Iterable[tuple[Record, DeliveryRequested]]) -> list[Request]:
    """What records ask for, one request per channel and conversation: from the lowest seq to the highest."""
    merged: dict[tuple[str, str], Request] = {}
    for record, event in requested:
        for target in event.targets:
            key = (str(target.channel_id), str(event.conversation_id))
            before = merged.get(key)
            merged[key] = Request(
                *key,
                partition=record.partition,
                first_seq=min(event.seq, before.first_seq) if before else event.seq,
                last_seq=max(event.seq, before.last_seq) if before else event.seq,
            )
    return list(merged.values())


def _reason(error: ValidationError) -> str:
    return f"{error.error_count()} errors, the first: {error.errors()[0]['msg']}"
