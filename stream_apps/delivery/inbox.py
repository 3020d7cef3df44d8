"""The caller's inbox: computed when it is read, so a message costs the same in a group of two or of thousands."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel, Field

from schemas.ids import is_uuid
from schemas.redis_keys import TIMELINE_LENGTH
from stream_apps.delivery.history import make_message
from stream_apps.delivery.reads import Reads
from stream_apps.delivery.tables import Tables, TablesUnavailable
from stream_apps.log_reader import ConversationSummary, LogReader


class MalformedInboxCursor(ValueError):
    """This is not a cursor that an inbox page gave."""


class LastMessage(BaseModel):
    """A conversation's latest message, as it is now."""

    message_id: str
    actor_id: str
    seq: int
    created_at: str
    body: dict[str, Any] | None = Field(description="null once the message is deleted.")
    edited: bool
    deleted: bool


class InboxConversation(BaseModel):
    """One line of an inbox."""

    conversation_id: str
    title: str | None
    seq: int = Field(description="How far the conversation is for the caller.")
    left_seq: int | None = Field(description="Where the caller left it; null as long as the caller is in it.")
    unread_count: int = Field(
        description="Messages of others, not deleted, after what the caller has read. Exact within the conversation's "
        f"newest {TIMELINE_LENGTH} entries; older ones are not counted."
    )
    last_message: LastMessage | None = Field(description="null before the first message.")


class InboxPage(BaseModel):
    """A page of the inbox, most recently active first."""

    conversations: list[InboxConversation]
    next: str | None = Field(description="`cursor` of the page that follows; null at the end.")


@dataclass(frozen=True, slots=True)
class Line:
    """One conversation and what it is sorted by: `active_at` is the time of its last message, else of its last
    entry, as payloads carry it (RFC 3339, UTC, microseconds: text order is time order)."""

    active_at: str
    conversation_id: str
    summary: ConversationSummary
    last_message: LastMessage | None

    @property
    def place(self) -> tuple[str, str]:
        """Where the line stands; no two lines of an inbox share one."""
        return self.active_at, self.conversation_id

    @property
    def unread_range(self) -> tuple[int, int]:
        """The seqs, both included, in which unread messages are counted; the second is smaller if there are none."""
        membership = self.summary.membership
        end_seq = membership.end_seq
        return max(self.summary.read_seq + 1, membership.joined_seq, end_seq - TIMELINE_LENGTH + 1), end_seq


def make_line(conversation_id: str, summary: ConversationSummary) -> Line:
    """The line of a conversation. A last message from before the caller joined is none."""
    if summary.last_message is not None:
        change = summary.last_change if _are_of_one_message(summary) else None
        message = make_message(summary.last_message, change)
        if message.seq >= summary.membership.joined_seq:
            return Line(message.created_at, conversation_id, summary, LastMessage(**message.model_dump()))
    active_at = "" if summary.last_entry is None else str(json.loads(summary.last_entry)["created_at"])
    return Line(active_at, conversation_id, summary, None)


def _are_of_one_message(summary: ConversationSummary) -> bool:
    if summary.last_message is None or summary.last_change is None:
        return False
    return bool(json.loads(summary.last_message)["message_id"] == json.loads(summary.last_change)["message_id"])


def choose_lines(lines: Iterable[Line], *, limit: int, cursor: str | None) -> tuple[list[Line], str | None]:
    """The `limit` lines that follow the cursor, and the cursor of those after them. Raises MalformedInboxCursor."""
    after = None if cursor is None else decode_place(cursor)
    following = sorted(
        (line for line in lines if after is None or line.place < after), key=lambda line: line.place, reverse=True
    )
    shown = following[:limit]
    return shown, encode_place(shown[-1].place) if len(following) > limit else None


def make_page(shown: Sequence[Line], unread: Mapping[str, int], cursor: str | None) -> InboxPage:
    """The page of these lines, with how much is unread in each."""
    return InboxPage(
        conversations=[
            InboxConversation(
                conversation_id=line.conversation_id,
                title=line.summary.title,
                seq=line.summary.membership.end_seq,
                left_seq=line.summary.membership.left_seq,
                unread_count=unread.get(line.conversation_id, 0),
                last_message=line.last_message,
            )
            for line in shown
        ],
        next=cursor,
    )


def encode_place(place: tuple[str, str]) -> str:
    """A place in an inbox as an opaque cursor."""
    return base64.urlsafe_b64encode(" ".join(place).encode()).decode().rstrip("=")


def decode_place(cursor: str) -> tuple[str, str]:
    """The inverse of encode_place. Raises MalformedInboxCursor."""
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, UnicodeError, ValueError) as error:
        raise MalformedInboxCursor(cursor) from error
    active_at, _, conversation_id = text.partition(" ")
    if not is_uuid(conversation_id):
        raise MalformedInboxCursor(cursor)
    return active_at, conversation_id


async def read_lines(user_id: str, *, reads: Reads, tables: Tables, log: LogReader) -> list[Line]:
    """Every conversation that the user is or was in, in no order. One that it left is read from Postgres: the tables
    tell what is there now. Raises LogUnavailable."""
    stays = await reads.read_user_conversations(user_id)
    present = [each for each, stay in stays.items() if stay.left_seq is None]
    try:
        summaries = await tables.read_summaries(user_id, present)
        lines = {each: make_line(each, summary) for each, summary in summaries.items()}
        silent = [each for each, line in lines.items() if line.last_message is None]
        for each, payload in (await tables.read_newest(silent)).items():
            lines[each] = make_line(each, replace(summaries[each], last_entry=payload))
    except TablesUnavailable:
        lines = {}
    absent = [each for each in stays if each not in lines]
    if absent:
        found = await log.read_summaries(user_id, absent)
        lines |= {each: make_line(each, summary) for each, summary in found.items()}
    return list(lines.values())


async def count_unread(user_id: str, shown: Sequence[Line], *, tables: Tables, log: LogReader) -> dict[str, int]:
    """How many unread messages there are in each of the lines. Raises LogUnavailable."""
    ranges = {line.conversation_id: line.unread_range for line in shown}
    ranges = {each: (first, last) for each, (first, last) in ranges.items() if first <= last}
    try:
        counts = await tables.count_unread(user_id, ranges)
    except TablesUnavailable:
        counts = {}
    uncounted = {each: bounds for each, bounds in ranges.items() if each not in counts}
    if uncounted:
        counts |= await log.read_unread(user_id, uncounted)
    return counts
