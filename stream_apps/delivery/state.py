"""What the running delivery holds: made once by app.py, reached by routes through `request.app.state.delivery`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from prometheus_client import CollectorRegistry

from schemas.tokens import TokenVerifier
from stream_apps.delivery.live.presence import Presence
from stream_apps.delivery.live.streams import Streams
from stream_apps.delivery.parts import Parts
from stream_apps.delivery.reads import Reads
from stream_apps.delivery.tables import Tables
from stream_apps.log_reader import LogReader


@dataclass(frozen=True, slots=True)
class State:
    """The running delivery's parts."""

    tables: Tables
    log: LogReader
    reads: Reads
    streams: Streams
    verifier: TokenVerifier
    presence: Presence
    parts: Parts
    registry: CollectorRegistry
    allowed_origins: frozenset[str]
    heartbeat_seconds: float


async def get_state(request: Request) -> State:
    """The running delivery's parts, for a route."""
    state: State = request.app.state.delivery
    return state


Delivery = Annotated[State, Depends(get_state)]
