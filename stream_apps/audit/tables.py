"""Reads what the Redis tables hold, for audit: everything as it is, without judging it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any

from redis.asyncio import Redis

from schemas import redis_keys
from schemas.ids import is_uuid
from schemas.redis_keys import Stay
from stream_apps.audit.checker import HeldTable
from stream_apps.log_reader import LogEntry
from stream_apps.redis_tables.tables import is_no_table

HEAD_PATTERN = redis_keys.head_key("*")
HEAD_PREFIX, HEAD_SUFFIX = HEAD_PATTERN.split("*")


class TableReader:
    """Raises redis.RedisError. What cannot be read as what it should be is left out, and so found to lack."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def read_timelines(self, first_seqs: Mapping[str, int]) -> dict[str, HeldTable]:
        """Each conversation's head and its timeline from a seq on; those without a head are left out."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            for name, first_seq in first_seqs.items():
                pipeline.hgetall(redis_keys.head_key(name))
                pipeline.xrange(redis_keys.timeline_key(name), min=f"{first_seq}-0")
            answers = await pipeline.execute(raise_on_error=False)
        return {
            name: _held(*found)
            for name, *found in zip(first_seqs, answers[::2], answers[1::2], strict=True)
            if _are_tables(found)
        }

    async def read_whole(self, ids: Iterable[str]) -> dict[str, HeldTable]:
        """Everything that Redis holds of each conversation; those without a head are left out."""
        names = list(ids)
        async with self._redis.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.hgetall(redis_keys.head_key(name))
                pipeline.xrange(redis_keys.timeline_key(name))
                pipeline.hgetall(redis_keys.participants_key(name))
                pipeline.hgetall(redis_keys.changes_key(name))
                pipeline.hgetall(redis_keys.receipts_key(name))
            answers = await pipeline.execute(raise_on_error=False)
        found: dict[str, HeldTable] = {}
        for at, name in enumerate(names):
            held = answers[at * 5 : at * 5 + 5]
            if _are_tables(held):
                head, entries, participants, changes, receipts = held
                table = found[name] = _held(head, entries)
                table.participants = _decoded(participants, redis_keys.decode_participation)
                table.changes = _decoded(changes, redis_keys.decode_change)
                table.receipts = _decoded(receipts, redis_keys.decode_receipt)
        return found

    async def read_stays(self, conversations: Mapping[str, Iterable[str]]) -> dict[tuple[str, str], Stay | None]:
        """What users' tables say of conversations, by (conversation, user): None if the table does not know it. Tables
        that are not complete prove nothing, and are left out."""
        pairs = [(name, user_id) for name, users in conversations.items() for user_id in users]
        async with self._redis.pipeline(transaction=False) as pipeline:
            for name, user_id in pairs:
                pipeline.hmget(redis_keys.user_conversations_key(user_id), redis_keys.USER_COMPLETE, name)
            answers = await pipeline.execute(raise_on_error=False)
        return {
            pair: None if answer[1] is None else redis_keys.decode_stay(answer[1])
            for pair, answer in zip(pairs, answers, strict=True)
            if not is_no_table(answer) and answer[0] is not None
        }

    async def scan_heads(self) -> AsyncIterator[list[str]]:
        """The conversations that have a head, in groups; one may come twice."""
        group: list[str] = []
        async for key in self._redis.scan_iter(match=HEAD_PATTERN, count=1000):
            name = key.decode(errors="replace").removeprefix(HEAD_PREFIX).removesuffix(HEAD_SUFFIX)
            if is_uuid(name):
                group.append(name)
            if len(group) >= 1000:
                yield group
                group = []
        if group:
            yield group


def _are_tables(answers: Sequence[Any]) -> bool:
    """Whether all of a conversation's keys that were read are tables, and the head says how far they are."""
    if any(is_no_table(answer) for answer in answers):
        return False
    return redis_keys.HEAD_SEQ.encode() in answers[0]


def _held(head: Mapping[bytes, bytes], entries: Iterable[tuple[bytes, dict[bytes, bytes]]]) -> HeldTable:
    title = head.get(redis_keys.HEAD_TITLE.encode())
    return HeldTable(
        epoch=head.get(redis_keys.HEAD_EPOCH.encode(), b"").decode(),
        seq=int(head[redis_keys.HEAD_SEQ.encode()]),
        title=None if title is None else title.decode(errors="replace"),
        last_message=head.get(redis_keys.HEAD_LAST_MESSAGE.encode()),
        last_change=head.get(redis_keys.HEAD_LAST_CHANGE.encode()),
        entries=[
            LogEntry(
                int(name.split(b"-")[0]),
                fields.get(redis_keys.ENTRY_EVENT_ID.encode(), b"").decode(errors="replace"),
                fields.get(redis_keys.ENTRY_EVENT_TYPE.encode(), b"").decode(errors="replace"),
                fields.get(redis_keys.ENTRY_PAYLOAD.encode(), b""),
            )
            for name, fields in entries
        ],
    )


def _decoded(table: Mapping[bytes, bytes], decode: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, text in table.items():
        try:
            found[name.decode()] = decode(text)
        except ValueError:
            continue
    return found
