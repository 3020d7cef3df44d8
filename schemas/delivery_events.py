"""What is to be delivered over channels, and what became of it. All have the key `conversation:{conversation_id}`."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field


class DeliveryTarget(BaseModel):
    """A user's channel, as it was set and verified when the message was routed."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    user_id: UUID
    channel_id: UUID


class DeliveryRequested(BaseModel):
    """A message is to be delivered to these targets, over the channel that the topic is named for. It is a pointer:
    what is delivered is read from the log."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    type: Literal["DeliveryRequested"]
    event_id: UUID
    conversation_id: UUID
    seq: int = Field(ge=1)
    message_id: UUID
    targets: list[DeliveryTarget]


class DeliveryOutcome(BaseModel):
    """What became of a try to deliver messages of one conversation to one target. `first_seq` and `last_seq` are those
    of the first and the last message; entries between them that are not the user's to see were not delivered."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    event_id: UUID
    conversation_id: UUID
    user_id: UUID
    channel: str
    channel_id: UUID
    first_seq: int = Field(ge=1)
    last_seq: int = Field(ge=1)
    created_at: datetime


class DeliverySucceeded(DeliveryOutcome):
    """The target has the messages."""

    type: Literal["DeliverySucceeded"] = "DeliverySucceeded"


class DeliveryFailed(DeliveryOutcome):
    """The target did not take the messages. Unless its channel is disabled, they are tried again."""

    type: Literal["DeliveryFailed"] = "DeliveryFailed"
    reason: str


REQUEST_EVENT_TYPES: dict[str, type[DeliveryRequested]] = {"DeliveryRequested": DeliveryRequested}
"""The records of channel.<name>."""

DELIVERY_EVENT_TYPES: dict[str, type[DeliveryOutcome]] = {
    "DeliverySucceeded": DeliverySucceeded,
    "DeliveryFailed": DeliveryFailed,
}
"""The records of delivery.events."""
