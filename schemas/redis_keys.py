"""The Redis tables: their keys, and how what they hold is written. Each table has one writer (the timeline app).

Braces are hash tags: all keys of one conversation live in one slot of a Redis Cluster.
"""

from __future__ import annotations

from dataclasses import dataclass

TIMELINE_LENGTH = 1000
"""About how many entries a timeline keeps (XADD … MAXLEN ~). Older ones are read from Postgres."""

# Fields of one entry of the stream `conv:{<id>}:timeline`, whose entry id is `<seq>-0`.
ENTRY_EVENT_ID = "id"
ENTRY_EVENT_TYPE = "type"
ENTRY_PAYLOAD = "data"

# Fields of the hash `conv:{<id>}:head`. `last_message` is the payload of the latest MessageSent, absent before it.
HEAD_EPOCH = "epoch"
HEAD_SEQ = "seq"
HEAD_TITLE = "title"
HEAD_LAST_MESSAGE = "last_message"


def timeline_key(conversation_id: str) -> str:
    """Stream: the conversation's latest events; entry ids are `<seq>-0`."""
    return f"conv:{{{conversation_id}}}:timeline"


def head_key(conversation_id: str) -> str:
    """Hash: how far the table is, and what an inbox shows."""
    return f"conv:{{{conversation_id}}}:head"


def participants_key(conversation_id: str) -> str:
    """Hash: user id -> the seq at which the user joined."""
    return f"conv:{{{conversation_id}}}:participants"


def live_channel(conversation_id: str) -> str:
    """Pub/Sub channel: every applied event, as a live frame."""
    return f"conv:{{{conversation_id}}}:live"


def user_conversations_key(user_id: str) -> str:
    """Hash: conversation id -> the seq at which the user joined it; plus the field USER_COMPLETE."""
    return f"user:{{{user_id}}}:conversations"


def user_live_channel(user_id: str) -> str:
    """Pub/Sub channel: `<conversation_id> <joined_seq>` whenever the user joins a conversation."""
    return f"user:{{{user_id}}}:live"


USER_COMPLETE = "complete"
"""Field of a user's table that says it was built from Postgres. A table without it proves nothing."""


@dataclass(frozen=True, slots=True)
class LiveFrame:
    """What is published on a live channel: one applied event. `payload` is its exact JSON text."""

    seq: int
    event_type: str
    event_id: str
    payload: bytes


def encode_live_frame(frame: LiveFrame) -> bytes:
    """`<seq> <type> <event_id>`, a line feed, the payload. (redis_tables/apply.lua writes the same.)"""
    return f"{frame.seq} {frame.event_type} {frame.event_id}\n".encode() + frame.payload


def decode_live_frame(data: bytes) -> LiveFrame:
    """The inverse of encode_live_frame. The payload is not parsed. Raises ValueError."""
    line, separator, payload = data.partition(b"\n")
    parts = line.decode("ascii").split(" ")
    if not separator or len(parts) != 3:
        raise ValueError(f"not a live frame: {data[:80]!r}")
    return LiveFrame(seq=int(parts[0]), event_type=parts[1], event_id=parts[2], payload=payload)
