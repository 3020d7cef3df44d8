"""What one client has been told, and what it still lacks: the rules that make every event arrive once and in order.
Pure."""

from __future__ import annotations

from collections.abc import Mapping

from stream_apps.delivery.live.cursors import CursorWriter


class Progress:
    """Decides for every event, live or read, whether it is the next of its conversation.

    A conversation is *behind* when an event is known to exist (`behind[conversation_id]` is its seq) that does not
    follow on the last one told. From then on its live events are left out, until reading has closed the hole.

    A conversation *ends* at the seq at which the user left it: nothing after that is told, until the user has come
    back. Its position stays in the cursors, so that they know what was told.
    """

    def __init__(self, cursors: CursorWriter) -> None:
        self.cursors = cursors
        self._told = cursors.positions
        self._behind: dict[str, int] = {}
        self._joined: dict[str, int] = {}
        self._ends: dict[str, int] = {}

    @property
    def behind(self) -> Mapping[str, int]:
        """The conversations that lack events -> the seq up to which events are known to exist."""
        return self._behind

    def told_seq(self, conversation_id: str) -> int:
        """The seq up to which the client has been told of a conversation that it follows."""
        return self._told[conversation_id]

    def joined_seq(self, conversation_id: str) -> int:
        """Where the stay began that is followed; 0 if none is."""
        return self._joined.get(conversation_id, 0)

    def is_following(self, conversation_id: str) -> bool:
        """Whether events of the conversation belong to this stream, those to come too."""
        return conversation_id in self._joined and not self.is_over(conversation_id)

    def is_over(self, conversation_id: str) -> bool:
        """Whether the user has left the conversation and was told all that it may be told."""
        end = self._ends.get(conversation_id)
        return end is not None and self._told[conversation_id] >= end

    def is_live(self, conversation_id: str) -> bool:
        """Whether the client is known to be where the conversation is, and may see what comes."""
        is_known = conversation_id in self._joined and conversation_id not in self._ends
        return is_known and conversation_id not in self._behind

    def begin(self, conversation_id: str, *, joined_seq: int) -> None:
        """Follows a conversation from its position in the cursors on."""
        self._joined[conversation_id] = joined_seq

    def follow(self, conversation_id: str, *, joined_seq: int) -> None:
        """Follows a conversation from the seq on at which the user joined it (again)."""
        self._joined[conversation_id] = joined_seq
        self._ends.pop(conversation_id, None)
        self._behind.pop(conversation_id, None)
        if self._told.get(conversation_id, -1) < joined_seq - 1:
            self.cursors.move(conversation_id, joined_seq - 1)

    def end(self, conversation_id: str, seq: int) -> None:
        """The user left at this seq. (What is told of an earlier stay changes nothing.)"""
        if seq < self.joined_seq(conversation_id) or conversation_id not in self._joined:
            return
        self._ends[conversation_id] = seq
        behind = min(self._behind.pop(conversation_id, 0), seq)
        self.learn(conversation_id, behind)

    def stop(self, conversation_id: str) -> None:
        """Nothing more is told of the conversation, unless it is followed anew."""
        self._ends[conversation_id] = self._told[conversation_id]
        self._behind.pop(conversation_id, None)

    def take_live(self, conversation_id: str, seq: int) -> bool:
        """Whether a live event is to be told now: it is the next one. Otherwise what it says of the seq is kept."""
        told = self._told.get(conversation_id)
        if told is None or seq <= told or conversation_id not in self._joined:
            return False
        if seq == told + 1 and conversation_id not in self._behind and seq <= self._ends.get(conversation_id, seq):
            self.cursors.move(conversation_id, seq)
            return True
        self.learn(conversation_id, seq)
        return False

    def take_read(self, conversation_id: str, seq: int) -> bool:
        """Whether an event that was read is to be told: it is the next one."""
        if seq != self._told[conversation_id] + 1 or seq > self._ends.get(conversation_id, seq):
            return False
        if seq >= self._behind.get(conversation_id, seq):
            self._behind.pop(conversation_id, None)
        self.cursors.move(conversation_id, seq)
        return True

    def learn(self, conversation_id: str, seq: int) -> None:
        """The conversation is known to have come as far as this seq."""
        seq = min(seq, self._ends.get(conversation_id, seq))
        if seq > self._told[conversation_id]:
            self._behind[conversation_id] = max(seq, self._behind.get(conversation_id, 0))

    def skip(self, conversation_id: str) -> None:
        """Gives up what a conversation lacks, if anything."""
        if conversation_id in self._behind:
            self.cursors.move(conversation_id, self._behind.pop(conversation_id))
