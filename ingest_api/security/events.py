"""Facts about security that somebody may want to keep. What becomes of them is decided where the program is wired."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SecurityEvent:
    """What happened (`login.failed`), to whom or by whom (a user id, if it is known), and data without secrets."""

    action: str
    actor_id: str | None = None
    detail: dict[str, str] = field(default_factory=dict)


OnSecurityEvent = Callable[[SecurityEvent], Awaitable[None]]
"""Called before the answer is sent; what it raises is the answer."""


async def log_security_event(event: SecurityEvent) -> None:
    """Writes the event as a log line."""
    logger.info("%s by %s %s", event.action, event.actor_id or "nobody known", event.detail)
