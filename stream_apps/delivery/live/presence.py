"""Who is online. A user with a live client holds a lease in Redis, which the process that serves it renews; when the
last of them stops renewing, the lease ends, and whichever process looks next says so. All of it is a hint: while Redis
is away nobody is told anything."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from importlib.resources import files

from redis.asyncio import Redis

from schemas.ephemeral import PRESENCE_CHANGED
from schemas.redis_keys import NO_SEQ, PRESENCE_KEY, LiveFrame, encode_live_frame, live_channel, participants_key
from stream_apps.delivery.reads import Reads
from stream_apps.delivery.tables import Tables, TablesUnavailable
from stream_apps.log_reader import LogUnavailable

logger = logging.getLogger(__name__)

LEASE_SECONDS = 45.0
RENEW_SECONDS = 15.0
GATHER_SECONDS = 0.2
"""Users who come within this time are told of together."""
USERS_PER_CALL = 500
MAX_PARTICIPANTS = 100
"""In larger conversations nobody is told who comes and goes: it would be most of what is told there."""
MAX_CONVERSATIONS = 200


class Presence:
    """Clients `came` and `went`; everything else happens in one task."""

    def __init__(self, tables: Tables, reads: Reads, *, clock: Callable[[], float] = time.time) -> None:
        self._tables = tables
        self._reads = reads
        self._clock = clock
        self._clients: Counter[str] = Counter()
        self._new: set[str] = set()
        self._has_new = asyncio.Event()
        self._is_closing = False
        self._task: asyncio.Task[None] | None = None
        self._script = (files("stream_apps.redis_tables") / "presence.lua").read_text()

    def start(self) -> None:
        """Begins to hold leases."""
        self._task = asyncio.create_task(self._run(), name="presence")

    async def close(self) -> None:
        """Renews no more. The leases end by themselves, unless the clients come back elsewhere before."""
        self._is_closing = True  # a library that is cancelled may make an error of its own of it
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def came(self, user_id: str) -> None:
        """A client of the user is here."""
        self._clients[user_id] += 1
        if self._clients[user_id] == 1:
            self._new.add(user_id)
            self._has_new.set()

    def went(self, user_id: str) -> None:
        """A client of the user is here no more."""
        self._clients[user_id] -= 1
        if not self._clients[user_id]:
            del self._clients[user_id]
            self._new.discard(user_id)

    async def find_online(self, user_ids: Iterable[str]) -> list[str]:
        """Those of the users who are online. Raises TablesUnavailable."""
        asked = list(user_ids)

        async def question(redis: Redis) -> list[float | None]:
            return list(await redis.zmscore(PRESENCE_KEY, asked))

        now = self._clock()
        ends = await self._tables.ask(question) if asked else []
        return [user_id for user_id, end in zip(asked, ends, strict=True) if end is not None and end > now]

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        renew_at = loop.time() + RENEW_SECONDS
        while not self._is_closing:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._has_new.wait(), max(0.0, renew_at - loop.time()))
            await asyncio.sleep(GATHER_SECONDS)
            if loop.time() >= renew_at:
                renew_at = loop.time() + RENEW_SECONDS
                users = list(self._clients)
            else:
                users = list(self._new)
            self._new.clear()
            self._has_new.clear()
            try:
                await self._renew(users)
            except (TablesUnavailable, LogUnavailable) as error:
                logger.info("Presence is not told now: %s", error)
            except Exception:
                logger.exception("Presence was not told")

    async def _renew(self, users: Sequence[str]) -> None:
        for first in range(0, max(1, len(users)), USERS_PER_CALL):
            came, gone = await self._tables.ask(self._lease(users[first : first + USERS_PER_CALL]))
            for user_id in came:
                await self._tell(user_id.decode(), is_online=True)
            for user_id in gone:
                await self._tell(user_id.decode(), is_online=False)

    def _lease(self, users: Sequence[str]) -> Callable[[Redis], Awaitable[tuple[list[bytes], list[bytes]]]]:
        async def question(redis: Redis) -> tuple[list[bytes], list[bytes]]:
            now = self._clock()
            script = redis.register_script(self._script)
            came, gone = await script([PRESENCE_KEY], [now, now + LEASE_SECONDS, USERS_PER_CALL, *users])
            return came, gone

        return question

    async def _tell(self, user_id: str, *, is_online: bool) -> None:
        """Tells those who watch the user's conversations, unless these are large."""
        stays = await self._reads.read_user_conversations(user_id)
        present = [each for each, stay in stays.items() if stay.left_seq is None][:MAX_CONVERSATIONS]

        async def count(redis: Redis) -> list[int]:
            async with redis.pipeline(transaction=False) as pipeline:
                for each in present:
                    pipeline.hlen(participants_key(each))
                return list(await pipeline.execute())

        async def publish(redis: Redis) -> None:
            async with redis.pipeline(transaction=False) as pipeline:
                for each in told:
                    pipeline.publish(live_channel(each), encode_presence(each, user_id, is_online=is_online))
                await pipeline.execute()

        if present:
            sizes = await self._tables.ask(count)
            told = [each for each, size in zip(present, sizes, strict=True) if 1 < size <= MAX_PARTICIPANTS]
            if told:
                await self._tables.ask(publish)


def encode_presence(conversation_id: str, user_id: str, *, is_online: bool) -> bytes:
    """The live frame that tells a conversation of a user's coming or going."""
    fields = {"type": PRESENCE_CHANGED, "conversation_id": conversation_id, "user_id": user_id, "online": is_online}
    return encode_live_frame(LiveFrame(NO_SEQ, PRESENCE_CHANGED, user_id, json.dumps(fields).encode()))
