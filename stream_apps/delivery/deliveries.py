"""How far a message is over its recipients' channels, for its sender: the state from Postgres, the rest from Redis."""

from __future__ import annotations

import json
from typing import Any, Literal
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, Field
from redis.asyncio import Redis

from schemas.redis_keys import deliveries_key
from stream_apps.delivery.errors import MessageNotFound, problems
from stream_apps.delivery.routes import PROBLEMS
from stream_apps.delivery.security import Caller
from stream_apps.delivery.state import Delivery as State
from stream_apps.delivery.tables import Tables, TablesUnavailable
from stream_apps.log_reader import Delivery

router = APIRouter(prefix="/v1/conversations", tags=["conversations"])


class DeliveryState(BaseModel):
    """How far the message is on its way over one channel of one recipient."""

    user_id: str
    channel: str = Field(examples=["webhook"])
    state: Literal["delivered", "pending", "abandoned"] = Field(
        description="pending: it is tried until it succeeds; abandoned: the channel was disabled before that."
    )
    at: str | None = Field(description="When it was last tried; null if that was not yet, or is not known any more.")
    reason: str | None = Field(description="Why the latest try failed.")


class MessageDeliveries(BaseModel):
    """A message's deliveries over channels."""

    message_id: str
    seq: int
    deliveries: list[DeliveryState] = Field(description="Empty if no recipient had a channel in use.")


@router.get(
    "/{conversation_id}/messages/{message_id}/deliveries",
    summary="How far your message is over webhooks and e-mail",
    responses={**PROBLEMS, **problems(MessageNotFound)},
)
async def get_deliveries(conversation_id: UUID, message_id: UUID, caller: Caller, delivery: State) -> MessageDeliveries:
    """Of recipients who have a channel of their own: whether it took the message. For the message's sender alone."""
    await delivery.reads.get_membership(str(conversation_id), caller.user_id)
    found = await delivery.log.find_deliveries(str(conversation_id), str(message_id))
    if found is None or found.actor_id != caller.user_id:
        raise MessageNotFound
    details = await read_details(delivery.tables, str(conversation_id), found.seq)
    return MessageDeliveries(
        message_id=str(message_id),
        seq=found.seq,
        deliveries=[state_of(each, details.get(f"{each.user_id}:{each.channel}", {})) for each in found.deliveries],
    )


async def read_details(tables: Tables, conversation_id: str, seq: int) -> dict[str, dict[str, str]]:
    """`<user_id>:<channel>` -> the latest try, as the channels app notes it; nothing if Redis does not answer."""

    async def question(redis: Redis) -> Any:
        return await redis.hgetall(deliveries_key(conversation_id, seq))

    try:
        fields = await tables.ask(question)
    except TablesUnavailable:
        return {}
    return {name.decode(): json.loads(value) for name, value in fields.items()}


def state_of(delivery: Delivery, detail: dict[str, str]) -> DeliveryState:
    """What the sender is told."""
    if delivery.is_delivered:
        state: Literal["delivered", "pending", "abandoned"] = "delivered"
    else:
        state = "abandoned" if delivery.is_disabled else "pending"
    return DeliveryState(
        user_id=delivery.user_id,
        channel=delivery.channel,
        state=state,
        at=detail.get("at"),
        reason=None if delivery.is_delivered else detail.get("reason"),
    )
