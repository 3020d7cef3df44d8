"""A conversation's messages, page by page, by seq."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, Field

from stream_apps.delivery.reads import Reads
from stream_apps.log_reader import LogEntry, Membership

MAX_SEQ = 2**62
"""Greater than every seq."""


class Message(BaseModel):
    """One message, as it is now. What was deleted keeps its place, without its body."""

    message_id: str
    conversation_id: str
    seq: int
    actor_id: str
    created_at: str
    body: dict[str, Any] | None = Field(default=None, description="null once the message is deleted.")
    reply_to: str | None = None
    edited: bool = False
    edited_at: str | None = None
    deleted: bool = False


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


async def read_page(reads: Reads, conversation_id: str, query: MessageQuery, *, membership: Membership) -> MessagePage:
    """The page that was asked for, of what this participant may see. Raises LogUnavailable."""
    if query.after_seq is not None:
        found = await _find_after(reads, conversation_id, query, membership)
    else:
        found = await _find_before(reads, conversation_id, query, membership)
    shown = found[: query.limit] if query.after_seq is not None else found[-query.limit :]
    changes = await reads.read_changes(conversation_id, shown, up_to_seq=membership.end_seq)
    messages = [make_message(entry.payload, changes.get(entry.event_id)) for entry in shown]
    return make_page(messages, query, membership, has_more=len(found) > query.limit)


def make_message(payload: bytes, change: bytes | None) -> Message:
    """A message from its payload and that of its latest change. Raises ValueError."""
    message = Message.model_validate_json(payload)
    if change is None:
        return message
    changed = json.loads(change)
    if changed["type"] == "MessageDeleted":
        return message.model_copy(update={"body": None, "deleted": True})
    return message.model_copy(update={"body": changed["body"], "edited": True, "edited_at": changed["created_at"]})


def make_page(messages: list[Message], query: MessageQuery, membership: Membership, *, has_more: bool) -> MessagePage:
    """The page of the messages that are shown, in seq order; `has_more` in the direction of reading.

    In that direction it is known whether there are more. In the other the page that `next` or `prev` leads to may be
    empty, but null is never told where there is something. (What a participant sees begins with a seq that is no
    message: the creation, or the participant's joining.)
    """
    end_seq = membership.end_seq
    beyond = max(0, query.end - 1) if query.end <= end_seq else None
    if query.after_seq is not None:
        return MessagePage(
            messages=messages,
            next=messages[-1].seq if has_more else beyond,
            prev=min(query.after_seq, end_seq) + 1 if query.after_seq > membership.joined_seq else None,
        )
    return MessagePage(messages=messages, next=beyond, prev=messages[0].seq if has_more else None)


async def _find_after(
    reads: Reads, conversation_id: str, query: MessageQuery, membership: Membership
) -> list[LogEntry]:
    """The first messages that the participant may see, one more than the page holds if there are more."""
    found: list[LogEntry] = []
    count = query.limit + 1
    after_seq = max(query.after_seq or 0, membership.joined_seq - 1)
    end = min(query.end, membership.end_seq + 1)
    while len(found) < count and after_seq < end - 1:
        entries = await reads.read_after(conversation_id, after_seq=after_seq, limit=count, head_seq=membership.end_seq)
        found += [entry for entry in entries if _is_message(entry) and entry.seq < end]
        if len(entries) < count:
            break
        after_seq = entries[-1].seq
    return found[:count]


async def _find_before(
    reads: Reads, conversation_id: str, query: MessageQuery, membership: Membership
) -> list[LogEntry]:
    """The last ones, likewise."""
    found: list[LogEntry] = []
    count = query.limit + 1
    before_seq = min(query.end, membership.end_seq + 1)
    while len(found) < count and before_seq > membership.joined_seq:
        entries = await reads.read_before(
            conversation_id, before_seq=before_seq, limit=count, head_seq=membership.end_seq
        )
        found = [entry for entry in entries if _is_message(entry) and entry.seq >= membership.joined_seq] + found
        if len(entries) < count:
            break
        before_seq = entries[0].seq
    return found[-count:]


def _is_message(entry: LogEntry) -> bool:
    return entry.event_type == "MessageSent"
