"""The Redis tables: their keys, and how what they hold is written. Each table has one writer: the
timeline app, or (deliveries) the channels app.

Braces are hash tags: all keys of one conversation live in one slot of a Redis Cluster.

A user sees a conversation from the seq at which it joined to the seq at which it left, both included, and has one such
stay per conversation: who comes back begins a new one, and what came before it is visible no longer. Whoever left keeps
the conversation, with the seq at which it left, so that it can go on reading up to there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from schemas.passages import Passage, decode_passage, encode_passage

TIMELINE_LENGTH = 1000
"""About how many entries a timeline keeps (XADD … MAXLEN ~). Older ones are read from Postgres."""

# Fields of one entry of the stream `conv:{<id>}:timeline`, whose entry id is `<seq>-0`. An entry that was rebuilt has
# no passage (schemas/passages.py).
ENTRY_EVENT_ID = "id"
ENTRY_EVENT_TYPE = "type"
ENTRY_PAYLOAD = "data"
ENTRY_PASSAGE = "passage"

# Fields of the hash `conv:{<id>}:head`. `last_message` is the payload of the latest MessageSent, absent before it.
# `last_change` is the payload of the latest MessageEdited or MessageDeleted of what was the last message then; it says
# nothing when it is of another message than `last_message` (so that a message need not clear it).
HEAD_EPOCH = "epoch"
HEAD_SEQ = "seq"
HEAD_TITLE = "title"
HEAD_LAST_MESSAGE = "last_message"
HEAD_LAST_CHANGE = "last_change"


class Participation(NamedTuple):
    """A participant's stay: from `joined_seq` to `left_seq`, both included; None while it lasts."""

    joined_seq: int
    left_seq: int | None
    role: str


class Receipt(NamedTuple):
    """How far a participant has received and read."""

    delivered_seq: int
    read_seq: int


class Stay(NamedTuple):
    """The same of a user's own table, without the role."""

    joined_seq: int
    left_seq: int | None


def timeline_key(conversation_id: str) -> str:
    """Stream: the conversation's latest events; entry ids are `<seq>-0`."""
    return f"conv:{{{conversation_id}}}:timeline"


def head_key(conversation_id: str) -> str:
    """Hash: how far the table is, and what an inbox shows."""
    return f"conv:{{{conversation_id}}}:head"


def participants_key(conversation_id: str) -> str:
    """Hash: user id -> `<joined_seq>:<left_seq or nothing>:<role>`, for those who have left too."""
    return f"conv:{{{conversation_id}}}:participants"


def changes_key(conversation_id: str) -> str:
    """Hash: message id -> `<seq> <payload>` of the message's latest MessageEdited or MessageDeleted.

    A change is younger than its message. So what has changed in a message that the timeline holds is younger than the
    timeline's first entry, and older changes need not be kept: they are dropped once the table holds more than twice
    TIMELINE_LENGTH of them.
    """
    return f"conv:{{{conversation_id}}}:changes"


def receipts_key(conversation_id: str) -> str:
    """Hash: user id -> `<delivered_seq>:<read_seq>`, which only grow. Says nothing if there is no head: what was lost
    is put back when the conversation's tables are rebuilt."""
    return f"conv:{{{conversation_id}}}:receipts"


def conversation_keys(conversation_id: str) -> tuple[str, ...]:
    """The keys of all tables of a conversation."""
    keys = (head_key, timeline_key, participants_key, changes_key, receipts_key)
    return tuple(key(conversation_id) for key in keys)


def live_channel(conversation_id: str) -> str:
    """Pub/Sub channel: every applied event, and every receipt that was news, as a live frame; and what delivery
    publishes there itself: ephemeral events (schemas/ephemeral.py)."""
    return f"conv:{{{conversation_id}}}:live"


def user_conversations_key(user_id: str) -> str:
    """Hash: conversation id -> `<joined_seq>:<left_seq or nothing>`; plus the field USER_COMPLETE. A conversation is
    never removed: leaving it notes the seq."""
    return f"user:{{{user_id}}}:conversations"


def user_live_channel(user_id: str) -> str:
    """Pub/Sub channel: `<conversation_id> joined <seq>` or `<conversation_id> left <seq>`, after the conversation's
    tables say so."""
    return f"user:{{{user_id}}}:live"


def deliveries_key(conversation_id: str, seq: int) -> str:
    """Hash: `<user_id>:<channel>` -> JSON of the latest try to deliver the message at this seq: `state` (`delivered` or
    `failing`), `at`, and `reason` of a failure. Written by the channels app, kept for DELIVERIES_SECONDS. It says when
    and why; whether a message is delivered is in Postgres (`channel_lines`)."""
    return f"conv:{{{conversation_id}}}:deliveries:{seq}"


DELIVERIES_SECONDS = 7 * 24 * 60 * 60

PRESENCE_KEY = "presence"
"""Sorted set: user id -> when its lease ends (seconds since 1970). Written by delivery; whoever is in it, and whose
lease has not ended, has a live client."""

TABLES_MARKER = "tables:marker"
"""Hash, written by audit alone: `life` (random, made when an empty Redis was found), `state` (`whole`, or `partial`
while that Redis is being filled) and `checked_until` (microseconds since 1970 by Postgres' clock: entries older than
this have been looked for in the tables). It goes and goes back together with the tables, which is how their loss shows:
there is no marker, or one that says less than it did."""

USER_COMPLETE = "complete"
"""Field of a user's table that says it was built from Postgres. A table without it proves nothing."""


def encode_participation(participation: Participation) -> str:
    """As the participants' table holds it."""
    joined_seq, left_seq, role = participation
    return f"{joined_seq}:{left_seq or ''}:{role}"


def decode_participation(text: bytes) -> Participation:
    """The inverse of encode_participation. Raises ValueError."""
    joined_seq, left_seq, role = text.decode().split(":")
    return Participation(int(joined_seq), int(left_seq) if left_seq else None, role)


def encode_stay(stay: Stay) -> str:
    """As a user's table holds it."""
    return f"{stay.joined_seq}:{stay.left_seq or ''}"


def decode_stay(text: bytes) -> Stay:
    """The inverse of encode_stay. Raises ValueError."""
    joined_seq, left_seq = text.decode().split(":")
    return Stay(int(joined_seq), int(left_seq) if left_seq else None)


def decode_receipt(text: bytes) -> Receipt:
    """What the receipts' table holds of a user. Raises ValueError."""
    delivered_seq, read_seq = text.split(b":")
    return Receipt(int(delivered_seq), int(read_seq))


def decode_change(value: bytes) -> tuple[int, bytes]:
    """What the changes' table holds of a message: the change's seq and payload. Raises ValueError."""
    seq, _, payload = value.partition(b" ")
    return int(seq), payload


NO_SEQ = 0
"""The seq of a live frame whose event has none."""


@dataclass(frozen=True, slots=True)
class LiveFrame:
    """What is published on a live channel: one applied event; or, with NO_SEQ, a receipt or an ephemeral event (whose
    `event_id` is the user that it is about). `payload` is its exact JSON text. What did not come by the timeline app's
    ordinary way has no passage."""

    seq: int
    event_type: str
    event_id: str
    payload: bytes
    passage: Passage | None = None


def encode_live_frame(frame: LiveFrame) -> bytes:
    """`<seq> <type> <event_id>`, a space and the passage if there is one, a line feed, the payload. (redis_tables/*.lua
    write the same.)"""
    passage = "" if frame.passage is None else f" {encode_passage(frame.passage)}"
    return f"{frame.seq} {frame.event_type} {frame.event_id}{passage}\n".encode() + frame.payload


def decode_live_frame(data: bytes) -> LiveFrame:
    """The inverse of encode_live_frame. The payload is not parsed. Raises ValueError."""
    line, separator, payload = data.partition(b"\n")
    seq, event_type, event_id, *passage = line.decode("ascii").split(" ", 3)
    if not separator:
        raise ValueError(f"not a live frame: {data[:80]!r}")
    return LiveFrame(int(seq), event_type, event_id, payload, decode_passage(passage[0]) if passage else None)
