"""Writes the Redis tables (schemas/redis_keys.py says what they hold). Every call may be repeated."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, NamedTuple, Protocol

from redis.asyncio import Redis

from schemas import redis_keys
from stream_apps.log_reader import ConversationSnapshot


class TimelineEvent(NamedTuple):
    """An event as the tables take it. `effects` is what it changes besides the timeline: '' or JSON (apply.lua)."""

    seq: int
    event_type: str
    event_id: str
    payload: bytes
    effects: str = ""


class Join(NamedTuple):
    """A user joined a conversation."""

    user_id: str
    conversation_id: str
    joined_seq: int


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of one conversation's events. `gap_after` is the head's seq when the next event did not follow on
    it (0 when there is no head), else None."""

    applied: int
    duplicates: int
    gap_after: int | None
    has_head: bool = True


class Tables(Protocol):
    """The tables as the timeline app writes them. (tests/contract holds all implementations to one behaviour.)"""

    async def apply(self, changes: Mapping[str, Sequence[TimelineEvent]]) -> dict[str, Applied]:
        """Applies each conversation's events, which are in seq order, as far as they follow on its head."""

    async def rebuild(self, snapshot: ConversationSnapshot) -> bool:
        """Replaces a conversation's tables unless they are as far already. Says whether it did."""

    async def join(self, joins: Sequence[Join]) -> list[str]:
        """Notes the joins; the users whose table is not complete, so that it must be built."""

    async def build_user(self, user_id: str, conversations: Mapping[str, int]) -> None:
        """Makes a user's table complete: conversation -> joined_seq."""

    async def announce(self, joins: Sequence[Join]) -> None:
        """Tells the users' live sessions."""


def effects_of(title: str | None, participants: Mapping[str, int]) -> str:
    """The effects of an event, for TimelineEvent."""
    changes: dict[str, Any] = {"participants": participants}
    if title is not None:
        changes["title"] = title
    return json.dumps(changes)


class RedisTables:
    """The tables in Redis. Raises redis.RedisError."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._apply = redis.register_script(_lua("apply"))
        self._rebuild = redis.register_script(_lua("rebuild"))
        self._join = redis.register_script(_lua("join"))

    async def apply(self, changes: Mapping[str, Sequence[TimelineEvent]]) -> dict[str, Applied]:
        """One call for all conversations."""
        keys: list[str] = []
        arguments: list[Any] = [redis_keys.TIMELINE_LENGTH, _new_epoch()]
        for conversation_id, events in changes.items():
            keys += _keys(conversation_id)
            arguments.append(len(events))
            for event in events:
                arguments += event
        answer = await self._apply(keys, arguments)
        return {
            conversation_id: _read_applied(*answer[at : at + 3])
            for conversation_id, at in zip(changes, range(0, len(answer), 3), strict=True)
        }

    async def rebuild(self, snapshot: ConversationSnapshot) -> bool:
        arguments: list[Any] = [snapshot.seq, _new_epoch(), snapshot.title or "", snapshot.last_message or b""]
        arguments.append(len(snapshot.participants))
        for participant in snapshot.participants.items():
            arguments += participant
        for entry in snapshot.entries:
            arguments += (entry.seq, entry.event_type, entry.event_id, entry.payload)
        return bool(await self._rebuild(_keys(snapshot.conversation_id), arguments))

    async def join(self, joins: Sequence[Join]) -> list[str]:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for join in joins:
                key = redis_keys.user_conversations_key(join.user_id)
                await self._join([key], [join.conversation_id, join.joined_seq], client=pipeline)
            answers = await pipeline.execute()
        return list(dict.fromkeys(join.user_id for join, done in zip(joins, answers, strict=True) if not done))

    async def build_user(self, user_id: str, conversations: Mapping[str, int]) -> None:
        key = redis_keys.user_conversations_key(user_id)
        fields: dict[Any, Any] = {**conversations, redis_keys.USER_COMPLETE: 1}
        await self._redis.hset(key, mapping=fields)

    async def announce(self, joins: Sequence[Join]) -> None:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for join in joins:
                pipeline.publish(
                    redis_keys.user_live_channel(join.user_id), f"{join.conversation_id} {join.joined_seq}"
                )
            await pipeline.execute()


def _lua(name: str) -> str:
    return (files("stream_apps.redis_tables") / f"{name}.lua").read_text()


def _new_epoch() -> str:
    return secrets.token_hex(8)


def _keys(conversation_id: str) -> list[str]:
    return [
        redis_keys.head_key(conversation_id),
        redis_keys.timeline_key(conversation_id),
        redis_keys.participants_key(conversation_id),
        redis_keys.live_channel(conversation_id),
    ]


def _read_applied(applied: int, duplicates: int, gap: int) -> Applied:
    if gap == -1:
        return Applied(applied, duplicates, None)
    return Applied(applied, duplicates, max(gap, 0), has_head=gap >= 0)
