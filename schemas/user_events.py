"""The events of a user: what became of the user's channels. On `user.events`, key `user:{user_id}`.

They carry no address and no secret: whoever sends over a channel reads these from Postgres.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter


class ChannelEvent(BaseModel):
    """What these events have. `revision` grows with every change of any channel, in the order of commits: of two
    events about one channel the one with the larger revision is the newer."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    event_id: UUID
    user_id: UUID
    channel: str = Field(description="webhook, email or the name of another adapter.")
    channel_id: UUID = Field(description="Names one setting of the channel; another address is another one.")
    revision: int = Field(ge=1)
    created_at: datetime


class ChannelSet(ChannelEvent):
    """The user set a channel, in place of the one before it. Nothing is delivered over it before it is verified."""

    type: Literal["ChannelSet"]


class ChannelVerified(ChannelEvent):
    """The user proved to receive what is sent over the channel: messages sent from now on are delivered."""

    type: Literal["ChannelVerified"]


class ChannelRemoved(ChannelEvent):
    """The user removed the channel."""

    type: Literal["ChannelRemoved"]


class ChannelDisabled(ChannelEvent):
    """Nothing is delivered over the channel any more: it failed for too long, or refused for good."""

    type: Literal["ChannelDisabled"]
    reason: str


UserEvent = ChannelSet | ChannelVerified | ChannelRemoved | ChannelDisabled

USER_EVENT_TYPES: dict[str, type[ChannelEvent]] = {
    "ChannelSet": ChannelSet,
    "ChannelVerified": ChannelVerified,
    "ChannelRemoved": ChannelRemoved,
    "ChannelDisabled": ChannelDisabled,
}
"""The records of user.events."""

_USER_EVENT: TypeAdapter[UserEvent] = TypeAdapter(Annotated[UserEvent, Field(discriminator="type")])


def parse_user_event(payload: bytes | str) -> UserEvent:
    """The event in a record of user.events. Raises pydantic.ValidationError."""
    return _USER_EVENT.validate_json(payload)
