"""Reads that fall through: the Redis tables where they can prove the answer, else Postgres."""

from __future__ import annotations

from collections.abc import Sequence

from stream_apps.delivery.errors import ConversationNotFound
from stream_apps.delivery.evidence import is_proof_after, is_proof_before
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

    async def get_membership(self, conversation_id: str, user_id: str, *, min_seq: int = 0) -> Membership:
        """Since when the user is in the conversation and how far that is: at least as far as `min_seq` if it has
        come that far. Raises ConversationNotFound."""
        try:
            membership = await self._tables.find_membership(conversation_id, user_id)
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

    async def get_conversation(self, conversation_id: str, user_id: str) -> ConversationDetails:
        """The conversation, for one who is in it. Raises ConversationNotFound."""
        try:
            details = await self._tables.find_conversation(conversation_id)
        except TablesUnavailable:
            details = None
        if details is not None and user_id in details.participants:
            self._metrics.from_redis.inc()
            return details
        details = await self._log.find_conversation(conversation_id)
        self._metrics.from_postgres.inc()
        if details is None or user_id not in details.participants:
            raise ConversationNotFound
        return details

    async def read_user_conversations(self, user_id: str) -> dict[str, int]:
        """The conversations that the user is in -> the seq at which the user joined."""
        try:
            conversations = await self._tables.find_user_conversations(user_id)
        except TablesUnavailable:
            conversations = None
        if conversations is not None:
            self._metrics.from_redis.inc()
            return conversations
        self._metrics.from_postgres.inc()
        return await self._log.read_user_conversations(user_id)

    async def read_last_seqs(self, conversation_ids: Sequence[str]) -> dict[str, int]:
        """How far each of the conversations is; those that do not exist are left out."""
        try:
            seqs = await self._tables.read_seqs(conversation_ids)
        except TablesUnavailable:
            seqs = {}
        absent = [each for each in conversation_ids if each not in seqs]
        if absent:
            self._metrics.from_postgres.inc()
            seqs.update(await self._log.read_last_seqs(absent))
        return seqs

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
        self._metrics.from_postgres.inc()
        return await self._log.read_entries(conversation_id, after_seq=after_seq, limit=limit)

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
