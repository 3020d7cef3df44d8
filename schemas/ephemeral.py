"""Ephemeral events: what live clients are told and nobody keeps. They have no seq, are in no log, and may be missed."""

from __future__ import annotations

from typing import Final, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

TYPING: Final = "Typing"
PRESENCE_CHANGED: Final = "PresenceChanged"


class Typing(BaseModel):
    """A participant is writing. It is told again while that goes on; believe it for `expires_in_ms`."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    type: Literal["Typing"] = TYPING
    conversation_id: UUID
    user_id: UUID
    expires_in_ms: int = Field(ge=0)


class PresenceChanged(BaseModel):
    """A participant has a live client now, or none any more."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    type: Literal["PresenceChanged"] = PRESENCE_CHANGED
    conversation_id: UUID
    user_id: UUID
    online: bool


EPHEMERAL_EVENT_TYPES: dict[str, type[BaseModel]] = {TYPING: Typing, PRESENCE_CHANGED: PresenceChanged}
"""What delivery publishes on live channels beside what is kept. The frame's event id is the user's."""
