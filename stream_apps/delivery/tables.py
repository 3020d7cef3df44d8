"""The Redis tables, read (the timeline app writes them). What they cannot prove is left to Postgres."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from schemas.redis_keys import (
    ENTRY_EVENT_ID,
    ENTRY_EVENT_TYPE,
    ENTRY_PAYLOAD,
    HEAD_LAST_MESSAGE,
    HEAD_SEQ,
    HEAD_TITLE,
    USER_COMPLETE,
    head_key,
    participants_key,
    timeline_key,
    user_conversations_key,
)
from stream_apps.breaker import Breaker
from stream_apps.delivery.telemetry import ReadMetrics
from stream_apps.log_reader import ConversationDetails, LogEntry, Membership

T = TypeVar("T")
_CANNOT_ANSWER = (RedisConnectionError, RedisTimeoutError, OSError, TimeoutError)


class TablesUnavailable(Exception):
    """Redis cannot be reached, did not answer in time, or refused."""


@dataclass(frozen=True, slots=True)
class Head:
    """How far a conversation's table is, and what an inbox shows of it. `last_message` is a payload."""

    seq: int
    title: str | None
    last_message: bytes | None


class Tables:
    """Questions to Redis. Every method raises TablesUnavailable, at once while Redis is known to be away."""

    def __init__(self, redis: Redis, *, breaker: Breaker, metrics: ReadMetrics) -> None:
        self._redis = redis
        self._breaker = breaker
        self._metrics = metrics

    async def ask(self, question: Callable[[Redis], Awaitable[T]]) -> T:
        """The answer to a question that is put to Redis unless it is known to be away."""
        if not self._breaker.may_try():
            raise TablesUnavailable("Redis did not answer a moment ago.")
        try:
            answer = await question(self._redis)
        except _CANNOT_ANSWER as error:
            self._breaker.failed()
            self._metrics.redis_failures_total.inc()
            raise TablesUnavailable(f"{type(error).__name__}: {error}") from error
        except RedisError as error:
            self._metrics.redis_failures_total.inc()
            raise TablesUnavailable(f"{type(error).__name__}: {error}") from error
        self._breaker.succeeded()
        return answer

    async def ping(self) -> None:
        """Returns when Redis has answered."""
        await self._execute([("PING",)])

    async def find_membership(self, conversation_id: str, user_id: str) -> Membership | None:
        """That the user is in the conversation, as the tables have it. None proves nothing: they may be behind."""
        seq, joined_seq = await self._execute(
            [
                ("HGET", head_key(conversation_id), HEAD_SEQ),
                ("HGET", participants_key(conversation_id), user_id),
            ],
            is_atomic=True,
        )
        if seq is None or joined_seq is None:
            return None
        return Membership(joined_seq=int(joined_seq), last_seq=int(seq))

    async def find_conversation(self, conversation_id: str) -> ConversationDetails | None:
        """Title, seq and participants, or None if the tables do not hold the conversation."""
        (seq, title), participants = await self._execute(
            [
                ("HMGET", head_key(conversation_id), HEAD_SEQ, HEAD_TITLE),
                ("HGETALL", participants_key(conversation_id)),
            ],
            is_atomic=True,
        )
        if seq is None:
            return None
        joined = sorted((int(joined_seq), user_id.decode()) for user_id, joined_seq in participants.items())
        return ConversationDetails(
            title=_text(title),
            last_seq=int(seq),
            participants={user_id: joined_seq for joined_seq, user_id in joined},
        )

    async def find_user_conversations(self, user_id: str) -> dict[str, int] | None:
        """The conversations that the user is in -> the seq at which the user joined; None if the table is not
        complete."""
        (table,) = await self._execute([("HGETALL", user_conversations_key(user_id))])
        if table.pop(USER_COMPLETE.encode(), None) is None:
            return None
        return {conversation_id.decode(): int(joined_seq) for conversation_id, joined_seq in table.items()}

    async def read_heads(self, conversation_ids: Sequence[str]) -> dict[str, Head]:
        """The heads that there are, in one round trip."""
        fields = (HEAD_SEQ, HEAD_TITLE, HEAD_LAST_MESSAGE)
        answers = await self._execute([("HMGET", head_key(each), *fields) for each in conversation_ids])
        return {
            conversation_id: Head(int(seq), _text(title), last_message)
            for conversation_id, (seq, title, last_message) in zip(conversation_ids, answers, strict=True)
            if seq is not None
        }

    async def read_seqs(self, conversation_ids: Sequence[str]) -> dict[str, int]:
        """How far each conversation's table is, for the heads that there are, in one round trip."""
        answers = await self._execute([("HGET", head_key(each), HEAD_SEQ) for each in conversation_ids])
        return {each: int(seq) for each, seq in zip(conversation_ids, answers, strict=True) if seq is not None}

    async def read_newest(self, conversation_ids: Sequence[str]) -> dict[str, bytes]:
        """The payload of each conversation's newest entry, where there is one, in one round trip."""
        answers = await self._execute([("XREVRANGE", timeline_key(e), "+", "-", "COUNT", 1) for e in conversation_ids])
        return {
            conversation_id: _entry(*entries[0]).payload
            for conversation_id, entries in zip(conversation_ids, answers, strict=True)
            if entries
        }

    async def read_after(self, conversation_id: str, *, after_seq: int, limit: int) -> list[LogEntry]:
        """The first `limit` entries after a seq that the timeline holds, in seq order."""
        (entries,) = await self._execute(
            [("XRANGE", timeline_key(conversation_id), f"{after_seq + 1}-0", "+", "COUNT", limit)]
        )
        return [_entry(*entry) for entry in entries]

    async def read_before(self, conversation_id: str, *, before_seq: int, limit: int) -> list[LogEntry]:
        """The last `limit` entries before a seq that the timeline holds, in seq order."""
        (entries,) = await self._execute(
            [("XREVRANGE", timeline_key(conversation_id), f"({before_seq}-0", "-", "COUNT", limit)]
        )
        return [_entry(*entry) for entry in reversed(entries)]

    async def _execute(self, commands: Sequence[tuple[Any, ...]], *, is_atomic: bool = False) -> list[Any]:
        if not commands:
            return []

        async def question(redis: Redis) -> list[Any]:
            async with redis.pipeline(transaction=is_atomic) as pipeline:
                for command in commands:
                    pipeline.execute_command(*command)
                return list(await pipeline.execute())

        return await self.ask(question)


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode()


def _entry(entry_id: bytes, fields: dict[bytes, bytes]) -> LogEntry:
    return LogEntry(
        seq=int(entry_id.partition(b"-")[0]),
        event_id=fields[ENTRY_EVENT_ID.encode()].decode(),
        event_type=fields[ENTRY_EVENT_TYPE.encode()].decode(),
        payload=fields[ENTRY_PAYLOAD.encode()],
    )
