"""Writes the Redis tables (schemas/redis_keys.py says what they hold). Every call may be repeated."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, NamedTuple, Protocol

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from schemas import redis_keys
from schemas.passages import NO_ORIGIN
from schemas.redis_keys import Stay
from stream_apps.log_reader import ConversationSnapshot
from stream_apps.redis_tables.replies import is_passing_reply


class TimelineEvent(NamedTuple):
    """An event as the tables take it. `effects` is what it changes besides the timeline: '' or JSON (apply.lua);
    `origin` what its record said of its passage (schemas/passages.py)."""

    seq: int
    event_type: str
    event_id: str
    payload: bytes
    effects: str = ""
    origin: str = NO_ORIGIN


class MembershipChange(NamedTuple):
    """A user joined a conversation at a seq, or left it."""

    user_id: str
    conversation_id: str
    seq: int
    has_left: bool = False

    @property
    def verb(self) -> str:
        """What the user did, as it is announced."""
        return "left" if self.has_left else "joined"


class ReceiptChange(NamedTuple):
    """A participant has received and read up to here. `payload` is the event's exact text."""

    user_id: str
    delivered_seq: int
    read_seq: int
    event_id: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of one conversation's events. `gap_after` is the head's seq when the next event did not follow on
    it (0 when there is no head), else None. `error` is what Redis said if the tables hold something that is none of
    ours; then only what was applied before it is known."""

    applied: int
    duplicates: int
    gap_after: int | None
    has_head: bool = True
    error: str | None = None


class Advanced(NamedTuple):
    """What became of receipts: how many were news, and what Redis said of conversations whose tables hold something
    that is none of ours."""

    news: int
    errors: Mapping[str, str]


class Head(NamedTuple):
    """How far a conversation's tables are, and which life of theirs it is."""

    epoch: str
    seq: int


class Tables(Protocol):
    """The tables as the timeline app writes them. (tests/contract holds all implementations to one behaviour.)"""

    async def apply(self, changes: Mapping[str, Sequence[TimelineEvent]]) -> dict[str, Applied]:
        """Applies each conversation's events, which are in seq order, as far as they follow on its head."""

    async def rebuild(self, snapshot: ConversationSnapshot, *, instead_of: Head | None = None) -> bool:
        """Replaces a conversation's tables unless they are as far already; if they are, only while their head is
        `instead_of`. Says whether it did."""

    async def drop(self, conversation_id: str) -> None:
        """Removes a conversation's tables, whatever is in their place. Absent is always safe: readers go to Postgres,
        and the next event has them rebuilt."""

    async def note_memberships(self, changes: Sequence[MembershipChange]) -> list[str]:
        """Notes who joined and left; the users whose table is not complete, so that it must be built. (What is no
        table of ours is removed, so it is not complete either.)"""

    async def build_user(self, user_id: str, conversations: Mapping[str, Stay]) -> None:
        """Makes a user's table complete, with every conversation that the user is or was in."""

    async def announce(self, changes: Sequence[MembershipChange]) -> None:
        """Tells the users' live sessions."""

    async def advance_receipts(self, changes: Mapping[str, Sequence[ReceiptChange]]) -> Advanced:
        """Advances each conversation's receipts."""


class RedisTables:
    """The tables in Redis. Raises redis.RedisError; of a script's errors only those that say that Redis cannot take
    writes just now, for the others are one conversation's alone."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._apply = redis.register_script(_lua("apply"))
        self._rebuild = redis.register_script(_lua("rebuild"))
        self._membership = redis.register_script(_lua("membership"))
        self._build_user = redis.register_script(_lua("build_user"))
        self._receipts = redis.register_script(_lua("receipts"))

    async def apply(self, changes: Mapping[str, Sequence[TimelineEvent]]) -> dict[str, Applied]:
        """One call for all conversations."""
        keys: list[str] = []
        arguments: list[Any] = [redis_keys.TIMELINE_LENGTH, _new_epoch()]
        for conversation_id, events in changes.items():
            keys += (
                redis_keys.head_key(conversation_id),
                redis_keys.timeline_key(conversation_id),
                redis_keys.participants_key(conversation_id),
                redis_keys.changes_key(conversation_id),
                redis_keys.live_channel(conversation_id),
            )
            arguments.append(len(events))
            for event in events:
                arguments += event
        answer = await self._apply(keys, arguments)
        return {
            conversation_id: _read_applied(*answer[at : at + 3])
            for conversation_id, at in zip(changes, range(0, len(answer), 3), strict=True)
        }

    async def rebuild(self, snapshot: ConversationSnapshot, *, instead_of: Head | None = None) -> bool:
        return bool(await self._rebuild(*_rebuilding(snapshot, instead_of)))

    async def rebuild_many(self, snapshots: Sequence[tuple[ConversationSnapshot, Head | None]]) -> list[bool | None]:
        """The same for many conversations, in one round trip; others' commands come in between. None: what is in the
        tables' place is no table, and has to be dropped."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            for snapshot, instead_of in snapshots:
                await self._rebuild(*_rebuilding(snapshot, instead_of), client=pipeline)
            answers = await pipeline.execute(raise_on_error=False)
        return [None if is_no_table(answer) else bool(answer) for answer in answers]

    async def drop(self, conversation_id: str) -> None:
        await self._redis.delete(*redis_keys.conversation_keys(conversation_id))

    async def note_memberships(self, changes: Sequence[MembershipChange]) -> list[str]:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for change in changes:
                key = redis_keys.user_conversations_key(change.user_id)
                await self._membership([key], [change.conversation_id, change.seq, change.verb], client=pipeline)
            answers = await pipeline.execute(raise_on_error=False)
        incomplete: dict[str, None] = {}
        for change, answer in zip(changes, answers, strict=True):
            if isinstance(answer, Exception):
                _raise_unless_local(answer)
                await self._redis.delete(redis_keys.user_conversations_key(change.user_id))
            if answer != 1:
                incomplete[change.user_id] = None
        return list(incomplete)

    async def build_user(self, user_id: str, conversations: Mapping[str, Stay]) -> None:
        arguments: list[str] = []
        for conversation_id, stay in conversations.items():
            arguments += (conversation_id, redis_keys.encode_stay(stay))
        key = redis_keys.user_conversations_key(user_id)
        try:
            await self._build_user([key], arguments)
        except ResponseError as error:
            _raise_unless_local(error)
            await self._redis.delete(key)
            await self._build_user([key], arguments)

    async def announce(self, changes: Sequence[MembershipChange]) -> None:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for change in changes:
                text = f"{change.conversation_id} {change.verb} {change.seq}"
                pipeline.publish(redis_keys.user_live_channel(change.user_id), text)
            await pipeline.execute()

    async def advance_receipts(self, changes: Mapping[str, Sequence[ReceiptChange]]) -> Advanced:
        """One call for all conversations."""
        keys: list[str] = []
        arguments: list[Any] = []
        for conversation_id, receipts in changes.items():
            keys += (redis_keys.receipts_key(conversation_id), redis_keys.live_channel(conversation_id))
            arguments.append(len(receipts))
            for receipt in receipts:
                arguments += receipt
        news, *errors = await self._receipts(keys, arguments)
        ids = list(changes)
        return Advanced(news, {ids[at]: _local(error) for at, error in zip(errors[::2], errors[1::2], strict=True)})


def is_no_table(answer: Any) -> bool:
    """Whether a command's answer is the error that a key holds something else than a table of ours. Raises the other
    errors."""
    if isinstance(answer, Exception):
        if "WRONGTYPE" not in str(answer):
            raise answer
        return True
    return False


def _lua(name: str) -> str:
    return (files("stream_apps.redis_tables") / f"{name}.lua").read_text()


def _rebuilding(snapshot: ConversationSnapshot, instead_of: Head | None) -> tuple[list[str], list[Any]]:
    """Keys and arguments of rebuild.lua."""
    title = "" if snapshot.title is None else f"+{snapshot.title}"
    changes = snapshot.changes
    arguments: list[Any] = [snapshot.seq, _new_epoch(), title]
    arguments += (snapshot.last_message or b"", snapshot.last_change or b"")
    arguments += (len(snapshot.participants), len(changes), len(snapshot.receipts))
    arguments += instead_of or ("", "")
    for user_id, participation in snapshot.participants.items():
        arguments += (user_id, redis_keys.encode_participation(participation))
    for message_id, change in changes.items():
        arguments += (message_id, b"%d %b" % (change.seq, change.payload))
    for user_id, receipt in snapshot.receipts.items():
        arguments += (user_id, *receipt)
    for entry in snapshot.entries:
        arguments += (entry.seq, entry.event_type, entry.event_id, entry.payload)
    keys = (
        redis_keys.head_key,
        redis_keys.timeline_key,
        redis_keys.participants_key,
        redis_keys.changes_key,
        redis_keys.receipts_key,
        redis_keys.live_channel,
    )
    return [key(snapshot.conversation_id) for key in keys], arguments


def _new_epoch() -> str:
    return secrets.token_hex(8)


def _local(error: bytes) -> str:
    """The text of an error that is one conversation's alone. Raises ResponseError for the others."""
    _raise_unless_local(ResponseError(error.decode()))
    return error.decode()


def _raise_unless_local(error: Exception) -> None:
    if not isinstance(error, ResponseError) or is_passing_reply(error):
        raise error


def _read_applied(applied: int, duplicates: int, gap: int | bytes) -> Applied:
    if isinstance(gap, bytes):
        return Applied(applied, duplicates, None, error=_local(gap))
    if gap == -1:
        return Applied(applied, duplicates, None)
    return Applied(applied, duplicates, max(gap, 0), has_head=gap >= 0)
