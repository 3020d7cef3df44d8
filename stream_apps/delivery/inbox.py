"""The caller's inbox: computed when it is read, so a message costs the same in a group of two or of thousands."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, Field

from schemas.ids import is_uuid
from stream_apps.delivery.reads import Reads
from stream_apps.delivery.tables import Tables, TablesUnavailable
from stream_apps.log_reader import LogReader


class MalformedInboxCursor(ValueError):
    """This is not a cursor that an inbox page gave."""


class LastMessage(BaseModel):
    """A conversation's latest message."""

    message_id: str
    actor_id: str
    seq: int
    created_at: str
    body: dict[str, Any]


class InboxConversation(BaseModel):
    """One line of an inbox."""

    conversation_id: str
    title: str | None
    seq: int = Field(description="How far the conversation is.")
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
    conversation: InboxConversation

    @property
    def place(self) -> tuple[str, str]:
        """Where the line stands; no two lines of an inbox share one."""
        return self.active_at, self.conversation.conversation_id


def make_line(
    conversation_id: str, *, seq: int, title: str | None, last_message: bytes | None, last_entry: bytes | None
) -> Line:
    """The line of a conversation, from the payloads of its last message and of its last entry."""
    if last_message is not None:
        message = LastMessage.model_validate_json(last_message)
        active_at = message.created_at
    else:
        message = None
        active_at = "" if last_entry is None else str(json.loads(last_entry)["created_at"])
    conversation = InboxConversation(conversation_id=conversation_id, title=title, seq=seq, last_message=message)
    return Line(active_at, conversation)


def make_page(lines: Iterable[Line], *, limit: int, cursor: str | None) -> InboxPage:
    """The `limit` lines that follow the cursor. Raises MalformedInboxCursor."""
    after = None if cursor is None else decode_place(cursor)
    following = sorted(
        (line for line in lines if after is None or line.place < after), key=lambda line: line.place, reverse=True
    )
    shown = following[:limit]
    return InboxPage(
        conversations=[line.conversation for line in shown],
        next=encode_place(shown[-1].place) if len(following) > limit else None,
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
    """Every conversation of the user, in no order. Raises LogUnavailable."""
    conversation_ids = list(await reads.read_user_conversations(user_id))
    try:
        heads = await tables.read_heads(conversation_ids)
        newest = await tables.read_newest([each for each, head in heads.items() if head.last_message is None])
    except TablesUnavailable:
        heads, newest = {}, {}
    lines = [
        make_line(each, seq=head.seq, title=head.title, last_message=head.last_message, last_entry=newest.get(each))
        for each, head in heads.items()
    ]
    absent = [each for each in conversation_ids if each not in heads]
    summaries = await log.read_summaries(absent) if absent else {}
    lines += [
        make_line(
            each,
            seq=summary.last_seq,
            title=summary.title,
            last_message=summary.last_message,
            last_entry=summary.last_entry,
        )
        for each, summary in summaries.items()
    ]
    return lines
