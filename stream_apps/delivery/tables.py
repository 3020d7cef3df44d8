"""The Redis tables, read (the timeline app writes them). What they cannot prove is left to Postgres."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from schemas.passages import Passage, decode_passage
from schemas.redis_keys import (
    ENTRY_EVENT_ID,
    ENTRY_EVENT_TYPE,
    ENTRY_PASSAGE,
    ENTRY_PAYLOAD,
    HEAD_LAST_CHANGE,
    HEAD_LAST_MESSAGE,
    HEAD_SEQ,
    HEAD_TITLE,
    USER_COMPLETE,
    Receipt,
    Stay,
    changes_key,
    decode_change,
    decode_participation,
    decode_receipt,
    decode_stay,
    head_key,
    participants_key,
    receipts_key,
    timeline_key,
    user_conversations_key,
)
from stream_apps.breaker import Breaker
from stream_apps.delivery.telemetry import ReadMetrics
from stream_apps.log_reader import ConversationDetails, ConversationSummary, LogEntry, Membership

T = TypeVar("T")
_CANNOT_ANSWER = (RedisConnectionError, RedisTimeoutError, OSError, TimeoutError)


class TablesUnavailable(Exception):
    """Redis cannot be reached, did not answer in time, or refused."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What the tables know of changes of messages: message id -> the latest one's seq and payload. They know of every
    change up to `head_seq` of every message from `first_seq` on."""

    head_seq: int
    first_seq: int
    changes: dict[str, tuple[int, bytes]]


class Tables:
    """Questions to Redis. Every method raises TablesUnavailable, at once while Redis is known to be away."""

    def __init__(self, redis: Redis, *, breaker: Breaker, metrics: ReadMetrics) -> None:
        self._redis = redis
        self._breaker = breaker
        self._metrics = metrics
        self._unread = (files("stream_apps.redis_tables") / "unread.lua").read_text()

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

    async def read_memberships(self, user_id: str, conversation_ids: Sequence[str]) -> dict[str, Membership]:
        """The user's stays in conversations, as the tables have it. A conversation that is left out proves nothing:
        they may be behind. In one round trip."""
        commands: list[tuple[Any, ...]] = []
        for each in conversation_ids:
            # In this order: who had left when the head was as far as it is must not be taken for present.
            commands.append(("HGET", head_key(each), HEAD_SEQ))
            commands.append(("HGET", participants_key(each), user_id))
        answers = await self._execute(commands)
        return {
            conversation_id: _membership(seq, participation)
            for conversation_id, seq, participation in zip(conversation_ids, answers[::2], answers[1::2], strict=True)
            if seq is not None and participation is not None
        }

    async def find_conversation(self, conversation_id: str) -> ConversationDetails | None:
        """Title, seq, participants and receipts, or None if the tables do not hold the conversation."""
        (seq, title), participants, receipts = await self._execute(
            [
                ("HMGET", head_key(conversation_id), HEAD_SEQ, HEAD_TITLE),
                ("HGETALL", participants_key(conversation_id)),
                ("HGETALL", receipts_key(conversation_id)),
            ],
            is_atomic=True,
        )
        if seq is None:
            return None
        stays = {user_id.decode(): decode_participation(text) for user_id, text in participants.items()}
        return ConversationDetails(
            title=_text(title),
            last_seq=int(seq),
            participants=dict(sorted(stays.items(), key=lambda item: (item[1].joined_seq, item[0]))),
            receipts={user_id.decode(): decode_receipt(text) for user_id, text in receipts.items()},
        )

    async def find_user_conversations(self, user_id: str) -> dict[str, Stay] | None:
        """The conversations that the user is or was in; None if the table is not complete."""
        (table,) = await self._execute([("HGETALL", user_conversations_key(user_id))])
        if table.pop(USER_COMPLETE.encode(), None) is None:
            return None
        return {conversation_id.decode(): decode_stay(text) for conversation_id, text in table.items()}

    async def read_summaries(self, user_id: str, conversation_ids: Sequence[str]) -> dict[str, ConversationSummary]:
        """What an inbox shows the user of those conversations that it is in and the tables hold, in one round trip;
        without the last entry."""
        commands: list[tuple[Any, ...]] = []
        fields = (HEAD_SEQ, HEAD_TITLE, HEAD_LAST_MESSAGE, HEAD_LAST_CHANGE)
        for each in conversation_ids:
            commands.append(("HMGET", head_key(each), *fields))
            commands.append(("HGET", participants_key(each), user_id))
            commands.append(("HGET", receipts_key(each), user_id))
        answers = await self._execute(commands)
        summaries: dict[str, ConversationSummary] = {}
        rows = zip(conversation_ids, answers[::3], answers[1::3], answers[2::3], strict=True)
        for conversation_id, (seq, title, message, change), participation, receipt in rows:
            if seq is None or participation is None:
                continue
            membership = _membership(seq, participation)
            if membership.left_seq is None:
                read_seq = Receipt(0, 0).read_seq if receipt is None else decode_receipt(receipt).read_seq
                summaries[conversation_id] = ConversationSummary(
                    membership, _text(title), message, change, None, read_seq
                )
        return summaries

    async def count_unread(self, user_id: str, ranges: Mapping[str, tuple[int, int]]) -> dict[str, int]:
        """How many messages of others there are in each conversation's range of seqs (both included), for those
        ranges that the timelines hold, in one round trip."""

        async def question(redis: Redis) -> list[Any]:
            script = redis.register_script(self._unread)
            async with redis.pipeline(transaction=False) as pipeline:
                for conversation_id, (first, last) in ranges.items():
                    await script([timeline_key(conversation_id)], [first, last, user_id], client=pipeline)
                return list(await pipeline.execute())

        answers = await self.ask(question) if ranges else []
        return {
            conversation_id: unread
            for (conversation_id, (first, last)), (entries, unread) in zip(ranges.items(), answers, strict=True)
            if entries == last - first + 1
        }

    async def find_changes(self, conversation_id: str, message_ids: Sequence[str]) -> Changes | None:
        """What changed in messages; None if the tables do not hold the conversation."""
        seq, oldest, values = await self._execute(
            [
                ("HGET", head_key(conversation_id), HEAD_SEQ),
                ("XRANGE", timeline_key(conversation_id), "-", "+", "COUNT", 1),
                ("HMGET", changes_key(conversation_id), *message_ids),
            ],
            is_atomic=True,
        )
        if seq is None or not oldest:
            return None
        changes = {
            message_id: decode_change(value)
            for message_id, value in zip(message_ids, values, strict=True)
            if value is not None
        }
        return Changes(int(seq), _entry(*oldest[0]).seq, changes)

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

    async def find_passage(self, conversation_id: str, seq: int) -> Passage | None:
        """When an event passed Kafka and Redis; None if the timeline does not hold it, or was rebuilt since."""
        (entries,) = await self._execute([("XRANGE", timeline_key(conversation_id), f"{seq}-0", f"{seq}-0")])
        text = entries[0][1].get(ENTRY_PASSAGE.encode()) if entries else None
        return None if text is None else decode_passage(text.decode())

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


def _membership(seq: bytes, participation: bytes) -> Membership:
    joined_seq, left_seq, _ = decode_participation(participation)
    return Membership(joined_seq=joined_seq, left_seq=left_seq, last_seq=int(seq))


def _entry(entry_id: bytes, fields: dict[bytes, bytes]) -> LogEntry:
    passage = fields.get(ENTRY_PASSAGE.encode())
    return LogEntry(
        seq=int(entry_id.partition(b"-")[0]),
        event_id=fields[ENTRY_EVENT_ID.encode()].decode(),
        event_type=fields[ENTRY_EVENT_TYPE.encode()].decode(),
        payload=fields[ENTRY_PAYLOAD.encode()],
        traceparent=decode_passage(passage.decode()).traceparent if passage is not None else None,
    )
