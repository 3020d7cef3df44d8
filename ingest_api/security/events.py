"""Facts about security. The audit log keeps them (ingest_api/audit)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from sqlalchemy.ext.asyncio import AsyncConnection


@dataclass(frozen=True, slots=True)
class SecurityEvent:
    """What happened (`login.failed`), to whom or by whom (a user id, if it is known), and data without secrets."""

    action: str
    actor_id: str | None = None
    detail: dict[str, str] = field(default_factory=dict)


OnSecurityEvent = Callable[[SecurityEvent], Awaitable[None]]
"""Called before the answer is sent; what it raises is the answer."""

RecordIn = Callable[[AsyncConnection, SecurityEvent], Awaitable[None]]
"""Called last in the transaction that the event tells of; it is recorded if that commits."""
