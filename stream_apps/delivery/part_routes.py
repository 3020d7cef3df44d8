"""`GET /v1/parts`: how the parts of the system are."""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi import APIRouter
from pydantic import BaseModel, Field

from stream_apps.delivery.errors import problems
from stream_apps.delivery.parts import PartState
from stream_apps.delivery.security import Caller, InsufficientScope, Unauthenticated
from stream_apps.delivery.state import Delivery

router = APIRouter(prefix="/v1", tags=["operations"])


class PartStates(BaseModel):
    """How all parts were a moment ago."""

    parts: list[PartState]
    answered_at: datetime = Field(description="When this answer was made, by this server: for comparing clocks.")


@router.get(
    "/parts",
    summary="How the parts of the system are",
    responses=problems(Unauthenticated, InsufficientScope),
)
async def get_parts(_: Caller, delivery: Delivery) -> PartStates:
    """Delivery itself, Redis, Postgres, and what the setting PARTS names."""
    return PartStates(parts=await delivery.parts.look(), answered_at=datetime.now(UTC))
