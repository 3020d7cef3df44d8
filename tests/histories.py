"""Any history of a conversation, for property tests: steps that Hypothesis draws, and the log entries they make."""

from __future__ import annotations

import json
import uuid
from typing import Any

from hypothesis import strategies as st

from stream_apps.delivery.former import conversation_as_of
from stream_apps.log_reader import ConversationSnapshot, LogEntry, latest_changes

USERS = [str(uuid.UUID(int=number, version=4)) for number in range(101, 105)]
KINDS = ("send", "send", "edit", "delete", "join", "leave", "hand over", "title", "no title")

Step = tuple[str, int]
steps: st.SearchStrategy[list[Step]] = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 50)), max_size=30)
"""What happens after a conversation was created by the first of USERS with the second; the number says to whom or
what. Steps that could not happen (an edit before the first message) make no entry."""


class History:
    """The log of one conversation, step by step. The first user never leaves."""

    def __init__(self, conversation_id: str, taken: list[Step]) -> None:
        self.conversation_id = conversation_id
        self.entries: list[LogEntry] = []
        self._messages: list[str] = []
        self._present = {1}
        self._append("ConversationCreated", title="hello", participants=USERS[:2])
        for kind, number in taken:
            self._take(kind, number)

    def snapshot(self) -> ConversationSnapshot:
        """What Postgres holds after all of it."""
        details = conversation_as_of(len(self.entries), self.entries, {})
        messages = [entry for entry in self.entries if entry.event_type == "MessageSent"]
        change = latest_changes(self.entries).get(messages[-1].event_id) if messages else None
        return ConversationSnapshot(
            conversation_id=self.conversation_id,
            seq=details.last_seq,
            title=details.title,
            participants=details.participants,
            receipts={},
            last_message=messages[-1].payload if messages else None,
            last_change=None if change is None else change.payload,
            entries=self.entries,
        )

    def _take(self, kind: str, number: int) -> None:
        someone = number % (len(USERS) - 1) + 1
        if kind == "send":
            self._messages.append(self._append("MessageSent", body={"type": "text", "text": f"ünï {number}"}))
        elif kind == "edit" and self._messages:
            body = {"type": "text", "text": f"edited {number}"}
            self._append("MessageEdited", message_id=self._messages[-1 - number % len(self._messages)], body=body)
        elif kind == "delete" and self._messages:
            self._append("MessageDeleted", message_id=self._messages[-1 - number % len(self._messages)])
        elif kind == "join" and someone not in self._present:
            self._present.add(someone)
            self._append("ParticipantJoined", user_id=USERS[someone], role="admin" if number % 2 else "member")
        elif kind in {"leave", "hand over"} and someone in self._present:
            self._present.remove(someone)
            successor = {"successor_id": USERS[0]} if kind == "hand over" else {}
            self._append("ParticipantLeft", user_id=USERS[someone], **successor)
        elif kind in {"title", "no title"}:
            self._append("TitleChanged", title=f"title {number}" if kind == "title" else None)

    def _append(self, event_type: str, **fields: Any) -> str:
        seq = len(self.entries) + 1
        event_id = str(uuid.uuid5(uuid.UUID(self.conversation_id), str(seq)))
        event = {
            "seq": seq,
            "created_at": "2026-01-02T03:04:05.678901Z",
            "event_id": event_id,
            "type": event_type,
            "conversation_id": self.conversation_id,
            "actor_id": USERS[0],
            **fields,
        }
        if event_type == "MessageSent":
            event["message_id"] = event_id
        self.entries.append(LogEntry(seq, event_id, event_type, json.dumps(event, ensure_ascii=False).encode()))
        return event_id
