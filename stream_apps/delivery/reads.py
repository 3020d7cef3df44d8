"""Reads that fall through: the Redis tables where they can prove the answer, else Postgres."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from schemas.redis_keys import Stay
from stream_apps.delivery.errors import ConversationNotFound
from stream_apps.delivery.evidence import is_proof_after, is_proof_before
from stream_apps.delivery.former import conversation_as_of
from stream_apps.delivery.tables import Tables, TablesUnavailable
from stream_apps.delivery.telemetry import ReadMetrics
from stream_apps.log_reader import ConversationDetails, LogEntry, LogReader, Membership


class Reads:
    """What a conversation holds, from whichever store can tell. Every method raises LogUnavailable when Redis cannot
    answer and Postgres is away."""

    def __init__(self, tables: Tables, log: LogReader, metrics: ReadMetrics) -> None:
        self._tables = tables
        self._log = log
        self._metrics = metrics
        self._reading: dict[tuple[str, int, int, int], asyncio.Task[list[LogEntry]]] = {}

    async def get_membership(self, conversation_id: str, user_id: str, *, min_seq: int = 0) -> Membership:
        """The user's stay in the conversation, which may be over, and how far that is: at least as far as `min_seq`
        if it has come that far. Raises ConversationNotFound."""
        try:
            membership = (await self._tables.read_memberships(user_id, [conversation_id])).get(conversation_id)
        except TablesUnavailable:
            membership = None
        if membership is not None and membership.last_seq >= min_seq:
            self._metrics.from_redis.inc()
            return membership
        membership = await self._log.find_membership(conversation_id, user_id)
        self._metrics.from_postgres.inc()
        if membership is None:
            raise ConversationNotFound
        return membership

    async def read_memberships(self, user_id: str, conversation_ids: Sequence[str]) -> dict[str, Membership]:
        """The user's stays in conversations; those that it never was in are left out."""
        try:
            memberships = await self._tables.read_memberships(user_id, conversation_ids)
        except TablesUnavailable:
            memberships = {}
        absent = [each for each in conversation_ids if each not in memberships]
        if absent:
            self._metrics.from_postgres.inc()
            memberships |= await self._log.read_memberships(user_id, absent)
        return memberships

    async def get_conversation(self, conversation_id: str, user_id: str) -> ConversationDetails:
        """The conversation, for one who is in it; for one who was, as it was then. Raises ConversationNotFound."""
        try:
            details = await self._tables.find_conversation(conversation_id)
        except TablesUnavailable:
            details = None
        if details is not None and user_id in details.participants:
            self._metrics.from_redis.inc()
        else:
            details = await self._log.find_conversation(conversation_id)
            self._metrics.from_postgres.inc()
        if details is None or user_id not in details.participants:
            raise ConversationNotFound
        left_seq = details.participants[user_id].left_seq
        if left_seq is None:
            return details
        structure = await self._log.read_structure(conversation_id, up_to_seq=left_seq)
        return conversation_as_of(left_seq, structure, details.receipts)

    async def read_user_conversations(self, user_id: str) -> dict[str, Stay]:
        """The conversations that the user is or was in."""
        try:
            conversations = await self._tables.find_user_conversations(user_id)
        except TablesUnavailable:
            conversations = None
        if conversations is not None:
            self._metrics.from_redis.inc()
            return conversations
        self._metrics.from_postgres.inc()
        return await self._log.read_user_conversations(user_id)

    async def read_changes(
        self, conversation_id: str, messages: Sequence[LogEntry], *, up_to_seq: int
    ) -> dict[str, bytes]:
        """Message id -> the payload of its latest change up to a seq, of those of the messages (in seq order) that were
        changed."""
        if not messages:
            return {}
        message_ids = [message.event_id for message in messages]
        try:
            held = await self._tables.find_changes(conversation_id, message_ids)
        except TablesUnavailable:
            held = None
        if (
            held is not None
            and held.head_seq >= up_to_seq
            and held.first_seq <= messages[0].seq
            and all(seq <= up_to_seq for seq, _ in held.changes.values())
        ):
            self._metrics.from_redis.inc()
            return {message_id: payload for message_id, (_, payload) in held.changes.items()}
        self._metrics.from_postgres.inc()
        changes = await self._log.read_changes(
            conversation_id, message_ids, after_seq=messages[0].seq, up_to_seq=up_to_seq
        )
        return {message_id: change.payload for message_id, change in changes.items()}

    async def read_after(self, conversation_id: str, *, after_seq: int, limit: int, head_seq: int) -> list[LogEntry]:
        """The first `limit` entries after a seq, in seq order, of a conversation that has reached `head_seq`."""
        try:
            entries = await self._tables.read_after(conversation_id, after_seq=after_seq, limit=limit)
        except TablesUnavailable:
            pass
        else:
            if is_proof_after(entries, after_seq=after_seq, limit=limit, head_seq=head_seq):
                self._metrics.from_redis.inc()
                return entries
        return await self._read_shared(conversation_id, after_seq=after_seq, limit=limit, head_seq=head_seq)

    async def read_before(self, conversation_id: str, *, before_seq: int, limit: int, head_seq: int) -> list[LogEntry]:
        """The last `limit` entries before a seq, in seq order, of a conversation that has reached `head_seq`."""
        try:
            entries = await self._tables.read_before(conversation_id, before_seq=before_seq, limit=limit)
        except TablesUnavailable:
            pass
        else:
            if is_proof_before(entries, before_seq=before_seq, limit=limit, head_seq=head_seq):
                self._metrics.from_redis.inc()
                return entries
        self._metrics.from_postgres.inc()
        return await self._log.read_entries_before(conversation_id, before_seq=before_seq, limit=limit)

    async def _read_shared(self, conversation_id: str, *, after_seq: int, limit: int, head_seq: int) -> list[LogEntry]:
        """From Postgres, once for all who ask the same at the same time: when Redis is away or has come back, every
        watcher of a conversation does. (The seq that is known to be reached is part of the question: an answer from
        before it was must not be taken for a gap.)"""
        question = (conversation_id, after_seq, limit, head_seq)
        reading = self._reading.get(question)
        if reading is None:
            self._metrics.from_postgres.inc()
            entries = self._log.read_entries(conversation_id, after_seq=after_seq, limit=limit)
            reading = self._reading[question] = asyncio.create_task(entries)
            reading.add_done_callback(lambda _: self._forget(question))
        return await asyncio.shield(reading)

    def _forget(self, question: tuple[str, int, int, int]) -> None:
        answered = self._reading.pop(question)
        if not answered.cancelled():
            answered.exception()  # whoever asked has it, unless all of them have left
