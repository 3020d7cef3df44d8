"""The store of the positions that cursors refer to: `cursor:<base id>` in Redis, each with an end to its life."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from redis.asyncio import Redis

from stream_apps.delivery.live.cursors import ID_LENGTH, NO_BASE, Base, Cursor, MalformedCursor, pack_base, unpack_base
from stream_apps.delivery.tables import Tables

SUPERSEDED_SECONDS = 10 * 60
"""How long a base lives that no new id refers to: a client may hold an older id for a while."""


def new_base(positions: Mapping[str, int]) -> Base:
    """A base with an id that nobody can guess. It is not stored yet."""
    return Base(secrets.token_bytes(ID_LENGTH), dict(positions))


def base_key(base_id: bytes) -> str:
    """The Redis key of a base. Not a table: what it holds is this app's own, and cannot be rebuilt."""
    return f"cursor:{base_id.hex()}"


class Bases:
    """Stores and loads bases. Every method raises TablesUnavailable."""

    def __init__(self, tables: Tables, *, lifetime_seconds: int) -> None:
        self._tables = tables
        self.lifetime_seconds = lifetime_seconds

    async def store(self, user_id: str, base: Base, *, superseded: bytes = NO_BASE) -> None:
        """Stores a base (again, if need be), and lets a superseded one end sooner."""
        packed = pack_base(user_id, base.positions)

        async def question(redis: Redis) -> None:
            async with redis.pipeline(transaction=False) as pipeline:
                pipeline.set(base_key(base.base_id), packed, ex=self.lifetime_seconds)
                if superseded != NO_BASE:
                    pipeline.expire(base_key(superseded), SUPERSEDED_SECONDS)
                await pipeline.execute()

        await self._tables.ask(question)

    async def load(self, cursor: Cursor, user_id: str) -> Base | None:
        """The base that a cursor refers to, which lives on for a whole lifetime; None if it refers to none. Raises
        MalformedCursor if it is gone or another user's."""
        if cursor.base_id == NO_BASE:
            return None

        async def question(redis: Redis) -> bytes | None:
            packed = await redis.getex(base_key(cursor.base_id), ex=self.lifetime_seconds)
            return packed if isinstance(packed, bytes) else None

        packed = await self._tables.ask(question)
        if packed is None:
            raise MalformedCursor("the positions behind the cursor are gone")
        return unpack_base(cursor.base_id, packed, user_id=user_id)
