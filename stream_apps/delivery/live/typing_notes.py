"""Who is writing: told to the conversation's live channel, kept nowhere."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from redis.asyncio import Redis

from schemas.ephemeral import TYPING
from schemas.redis_keys import NO_SEQ, LiveFrame, encode_live_frame, live_channel
from stream_apps.delivery.errors import ConversationNotFound
from stream_apps.delivery.reads import Reads
from stream_apps.delivery.tables import Tables, TablesUnavailable

TOLD_EVERY_SECONDS = 1.0
EXPIRES_IN_MS = 5000
MAX_CONVERSATIONS = 16


class TypingNotes:
    """What one client says of its writing: told at most once per second and conversation."""

    def __init__(self, tables: Tables, reads: Reads, user_id: str, *, clock: Callable[[], float] = time.monotonic):
        self._tables = tables
        self._reads = reads
        self._user_id = user_id
        self._clock = clock
        self._told_at: dict[str, float] = {}

    async def tell(self, conversation_id: str) -> None:
        """Tells the conversation that the user is writing; nobody, while Redis is away. Raises ConversationNotFound,
        LogUnavailable."""
        now = self._clock()
        if now - self._told_at.get(conversation_id, -TOLD_EVERY_SECONDS) < TOLD_EVERY_SECONDS:
            return
        membership = await self._reads.get_membership(conversation_id, self._user_id)
        if membership.left_seq is not None:
            raise ConversationNotFound
        if len(self._told_at) >= MAX_CONVERSATIONS:
            self._told_at.clear()
        self._told_at[conversation_id] = now
        frame = encode_typing(conversation_id, self._user_id)

        async def publish(redis: Redis) -> None:
            await redis.publish(live_channel(conversation_id), frame)

        try:
            await self._tables.ask(publish)
        except TablesUnavailable:
            return


def encode_typing(conversation_id: str, user_id: str) -> bytes:
    """The live frame that tells a conversation that a user is writing."""
    fields = {
        "type": TYPING,
        "conversation_id": conversation_id,
        "user_id": user_id,
        "expires_in_ms": EXPIRES_IN_MS,
    }
    return encode_live_frame(LiveFrame(NO_SEQ, TYPING, user_id, json.dumps(fields).encode()))
