"""What one client has been told, and what it still lacks: the rules that make every event arrive once and in order.
Pure."""

from __future__ import annotations

from collections.abc import Mapping

from stream_apps.delivery.live.cursors import CursorWriter


class Progress:
    """Decides for every event, live or read, whether it is the next of its conversation.

    A conversation is *behind* when an event is known to exist (`behind[conversation_id]` is its seq) that does not
    follow on the last one told. From then on its live events are left out, until reading has closed the hole.
    """

    def __init__(self, cursors: CursorWriter) -> None:
        self.cursors = cursors
        self._told = cursors.positions
        self._behind: dict[str, int] = {}

    @property
    def behind(self) -> Mapping[str, int]:
        """The conversations that lack events -> the seq up to which events are known to exist."""
        return self._behind

    def told_seq(self, conversation_id: str) -> int:
        """The seq up to which the client has been told of a conversation that it follows."""
        return self._told[conversation_id]

    def is_following(self, conversation_id: str) -> bool:
        """Whether events of the conversation belong to this stream."""
        return conversation_id in self._told

    def follow(self, conversation_id: str, *, after_seq: int) -> None:
        """Adds a conversation, of which the client is to be told everything after a seq."""
        self.cursors.move(conversation_id, after_seq)

    def take_live(self, conversation_id: str, seq: int) -> bytes | None:
        """The cursor to send with a live event, or None if it is not to be sent (now)."""
        told = self._told.get(conversation_id)
        if told is None or seq <= told:
            return None
        if seq == told + 1 and conversation_id not in self._behind:
            return self.cursors.move(conversation_id, seq)
        self.learn(conversation_id, seq)
        return None

    def take_read(self, conversation_id: str, seq: int) -> bytes | None:
        """The cursor to send with an event that was read, or None if it is not the next one."""
        if seq != self._told[conversation_id] + 1:
            return None
        if seq >= self._behind.get(conversation_id, seq):
            self._behind.pop(conversation_id, None)
        return self.cursors.move(conversation_id, seq)

    def learn(self, conversation_id: str, seq: int) -> None:
        """The conversation is known to have come as far as this seq."""
        if seq > self._told[conversation_id]:
            self._behind[conversation_id] = max(seq, self._behind.get(conversation_id, 0))

    def skip(self, conversation_id: str) -> bytes:
        """Gives up what a conversation lacks. The cursor to send with the gap."""
        return self.cursors.move(conversation_id, self._behind.pop(conversation_id))
