"""The tables' marker (schemas/redis_keys.py): tells whether Redis has lost its tables, or has been taken back."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from enum import StrEnum
from importlib.resources import files
from typing import Any

from redis.asyncio import Redis

from schemas.redis_keys import TABLES_MARKER


class Verdict(StrEnum):
    """What the marker says. UNFINISHED: whoever filled an empty Redis did not come to its end."""

    OK = "ok"
    LOST = "lost"
    REWOUND = "rewound"
    UNFINISHED = "unfinished"


class Marker:
    """What this process knows of the marker. Raises redis.RedisError."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._mark = redis.register_script((files("stream_apps.redis_tables") / "mark.lua").read_text())
        self._life = ""
        self._checked_until = 0

    @property
    def checked_until(self) -> datetime:
        """Entries older than this, by Postgres' clock, have been looked for in the tables."""
        return datetime.fromtimestamp(self._checked_until / 1e6, UTC)

    async def adopt(self) -> Verdict:
        """Takes the marker that is there for its own: that of an earlier process, or of Redis after it was taken back.
        LOST if there is none."""
        held: Any = await self._redis.hgetall(TABLES_MARKER)
        if b"life" not in held:
            return Verdict.LOST
        self._life = held[b"life"].decode()
        self._checked_until = int(held[b"checked_until"])
        return Verdict.OK if held.get(b"state") == b"whole" else Verdict.UNFINISHED

    async def begin(self, now: datetime) -> None:
        """Begins a new life: Redis is empty, or unknown, and is filled from now on."""
        self._life = secrets.token_hex(8)
        self._checked_until = _microseconds(now)
        await self._redis.hset(
            TABLES_MARKER, mapping={"life": self._life, "state": "partial", "checked_until": self._checked_until}
        )

    async def move(self, until: datetime, *, is_whole: bool = False) -> Verdict:
        """Notes how far the tables have been looked at; and whether they have been filled. OK, LOST or REWOUND."""
        moved_to = max(_microseconds(until), self._checked_until)
        answer = await self._mark(
            [TABLES_MARKER], [self._life, self._checked_until, moved_to, "whole" if is_whole else ""]
        )
        if answer in (b"ok", b"ahead"):
            self._checked_until = moved_to
            return Verdict.OK
        return Verdict(answer.decode())


def _microseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1_000_000)
