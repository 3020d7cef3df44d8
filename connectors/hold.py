"""Keeps the API from taking writes while something is put in order that new writes must not overtake."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import psycopg

from connectors.sessions import Session
from schemas.outboxes import HOLD_CLASS, HOLD_OBJECT

NOTICED_SECONDS = 2.0
"""Within this time every API process has noticed (CHAT4ALL_ADMISSION_INTERVAL_SECONDS is 1)."""

TRY_LOCK = "SELECT pg_try_advisory_lock(%s, %s)"
UNLOCK = "SELECT pg_advisory_unlock(%s, %s)"


class AlreadyHeld(Exception):
    """Another one recovers or changes the outboxes; the message is a sentence."""


@contextmanager
def writes_held(session: Session, say: Callable[[str], None]) -> Iterator[None]:
    """Within this block, which begins when the API has noticed, it answers writes with 503. It takes them again when
    the block or the session ends, however that is. Raises AlreadyHeld."""
    row = session.execute(TRY_LOCK, (HOLD_CLASS, HOLD_OBJECT)).fetchone()
    if row is None or not row[0]:
        raise AlreadyHeld("Another recover, or a change of outboxes, is at work; wait until it has ended.")
    try:
        say("the API takes no writes until this has ended")
        time.sleep(NOTICED_SECONDS)
        yield
    finally:
        with suppress(psycopg.Error):  # a session that is gone has let go
            session.execute(UNLOCK, (HOLD_CLASS, HOLD_OBJECT))
