"""Tells what became of deliveries: on delivery.events, and in a Redis table that the sender can read."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

from redis.asyncio import Redis
from redis.exceptions import RedisError

from schemas.delivery_events import DeliveryFailed, DeliveryOutcome, DeliverySucceeded
from schemas.envelope import HEADER_EVENT_ID, HEADER_EVENT_TYPE
from schemas.ids import conversation_key
from schemas.redis_keys import DELIVERIES_SECONDS, deliveries_key
from schemas.topics import DELIVERY_EVENTS
from stream_apps.breaker import Breaker
from stream_apps.channels.model import Delivered, Letter, Outcome, Target
from stream_apps.producer import Outgoing
from stream_apps.telemetry import ChannelMetrics

logger = logging.getLogger(__name__)


class Result(NamedTuple):
    """What became of a letter."""

    letter: Letter
    outcome: Outcome


class Sender(Protocol):
    """What sends records (stream_apps.producer.Producer)."""

    async def send(self, records: Sequence[Outgoing]) -> None: ...


class Outcomes:
    """Tells results. Kafka must take them; Redis may be away, since Postgres knows what is delivered: then only when
    it was, and why it was not, cannot be read."""

    def __init__(self, sender: Sender, redis: Redis, metrics: ChannelMetrics) -> None:
        self._sender = sender
        self._redis = redis
        self._metrics = metrics
        self._breaker = Breaker(retry_seconds=1.0)

    async def tell(self, target: Target, results: Sequence[Result]) -> None:
        """Returns when Kafka has them. Raises KafkaError."""
        if not results:
            return
        now = datetime.now(UTC)
        await self._sender.send([_record(make_event(target, result, now)) for result in results])
        await self._show(target, results, now)

    async def _show(self, target: Target, results: Sequence[Result], now: datetime) -> None:
        if not self._breaker.may_try():
            self._metrics.details_lost_total.inc(len(results))
            return
        field = f"{target.user_id}:{target.channel}"
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for letter, outcome in results:
                    value = json.dumps(_detail(outcome, now))
                    for message in letter.messages:
                        key = deliveries_key(letter.conversation_id, message.seq)
                        pipeline.hset(key, field, value)
                        pipeline.expire(key, DELIVERIES_SECONDS)
                await pipeline.execute()
        except (RedisError, OSError) as error:
            self._breaker.failed()
            self._metrics.details_lost_total.inc(len(results))
            logger.warning("Redis does not take the details of deliveries: %s: %s", type(error).__name__, error)
        else:
            self._breaker.succeeded()


def make_event(target: Target, result: Result, now: datetime) -> DeliveryOutcome:
    """The event that tells a result."""
    letter, outcome = result
    facts = {
        "event_id": uuid.uuid4(),
        "conversation_id": uuid.UUID(letter.conversation_id),
        "user_id": uuid.UUID(target.user_id),
        "channel": target.channel,
        "channel_id": uuid.UUID(target.channel_id),
        "first_seq": letter.messages[0].seq,
        "last_seq": letter.messages[-1].seq,
        "created_at": now,
    }
    if isinstance(outcome, Delivered):
        return DeliverySucceeded.model_validate(facts)
    return DeliveryFailed.model_validate({**facts, "reason": outcome.reason})


def _record(event: DeliveryOutcome) -> Outgoing:
    headers: list[tuple[str, bytes | None]] = [
        (HEADER_EVENT_ID, str(event.event_id).encode()),
        (HEADER_EVENT_TYPE, type(event).__name__.encode()),
    ]
    key = conversation_key(str(event.conversation_id)).encode()
    return Outgoing(DELIVERY_EVENTS.name, key, event.model_dump_json().encode(), headers)


def _detail(outcome: Outcome, now: datetime) -> dict[str, str]:
    at = now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(outcome, Delivered):
        return {"state": "delivered", "at": at}
    return {"state": "failing", "at": at, "reason": outcome.reason}
