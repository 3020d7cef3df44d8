"""A conversation's messages, page by page, by seq."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, Field

from stream_apps.delivery.reads import Reads
from stream_apps.log_reader import LogEntry

MAX_SEQ = 2**62
"""Greater than every seq."""


class Message(BaseModel):
    """One message."""

    message_id: str
    conversation_id: str
    seq: int
    actor_id: str
    created_at: str
    body: dict[str, Any]
    reply_to: str | None = None


class MessagePage(BaseModel):
    """Messages in seq order, and where to go on from them."""

    messages: list[Message]
    next: int | None = Field(description="`after_seq` of the page that follows; null when nothing follows yet.")
    prev: int | None = Field(description="`before_seq` of the page before; null at the beginning.")


@dataclass(frozen=True, slots=True)
class MessageQuery:
    """Messages with after_seq < seq < before_seq: the first `limit` of them if after_seq is given, else the last."""

    after_seq: int | None
    before_seq: int | None
    limit: int

    @property
    def end(self) -> int:
        """The seq at which the range ends; it is not in it."""
        return MAX_SEQ if self.before_seq is None else self.before_seq


async def read_page(reads: Reads, conversation_id: str, query: MessageQuery, *, head_seq: int) -> MessagePage:
    """The page that was asked for, of a conversation that has reached `head_seq`. Raises LogUnavailable."""
    if query.after_seq is not None:
        found = await _find_after(reads, conversation_id, query, query.after_seq, head_seq)
    else:
        found = await _find_before(reads, conversation_id, query, head_seq)
    return make_page(found, query, head_seq=head_seq)


def make_page(found: Sequence[LogEntry], query: MessageQuery, *, head_seq: int) -> MessagePage:
    """The page of the messages that were found, in seq order: one more than `limit` of them if there are more.

    In the direction of reading it is known whether there are more. In the other the page that `next` or `prev` leads
    to may be empty, but null is never told where there is something. (Seq 1 is the creation, never a message.)
    """
    has_more = len(found) > query.limit
    beyond = max(0, query.end - 1) if query.end <= head_seq else None
    if query.after_seq is not None:
        shown = found[: query.limit]
        return MessagePage(
            messages=_messages(shown),
            next=shown[-1].seq if has_more else beyond,
            prev=min(query.after_seq, head_seq) + 1 if query.after_seq > 1 else None,
        )
    shown = found[-query.limit :]
    return MessagePage(messages=_messages(shown), next=beyond, prev=shown[0].seq if has_more else None)


async def _find_after(
    reads: Reads, conversation_id: str, query: MessageQuery, after_seq: int, head_seq: int
) -> list[LogEntry]:
    found: list[LogEntry] = []
    count = query.limit + 1
    while len(found) < count:
        entries = await reads.read_after(conversation_id, after_seq=after_seq, limit=count, head_seq=head_seq)
        found += [entry for entry in entries if _is_message(entry) and entry.seq < query.end]
        if len(entries) < count or entries[-1].seq >= query.end - 1:
            break
        after_seq = entries[-1].seq
    return found[:count]


async def _find_before(reads: Reads, conversation_id: str, query: MessageQuery, head_seq: int) -> list[LogEntry]:
    found: list[LogEntry] = []
    count = query.limit + 1
    before_seq = query.end
    while len(found) < count:
        entries = await reads.read_before(conversation_id, before_seq=before_seq, limit=count, head_seq=head_seq)
        found = [entry for entry in entries if _is_message(entry)] + found
        if len(entries) < count:
            break
        before_seq = entries[0].seq
    return found[-count:]


def _is_message(entry: LogEntry) -> bool:
    return entry.event_type == "MessageSent"


def _messages(entries: Sequence[LogEntry]) -> list[Message]:
    return [Message.model_validate_json(entry.payload) for entry in entries]
