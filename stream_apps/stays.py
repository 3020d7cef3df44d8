"""Which of a conversation's entries a user may see, where the latest stay does not tell it: all stays, from the log."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from schemas.redis_keys import Stay


def stays_of(comings_and_goings: Iterable[tuple[int, str]]) -> list[Stay]:
    """A user's stays, from the seqs and types of those events that tell of the user: ConversationCreated with the user
    among the participants, ParticipantJoined, ParticipantLeft; in seq order."""
    stays: list[Stay] = []
    for seq, event_type in comings_and_goings:
        is_in = bool(stays) and stays[-1].left_seq is None
        if event_type == "ParticipantLeft":
            if is_in:
                stays[-1] = Stay(stays[-1].joined_seq, seq)
        elif not is_in:
            stays.append(Stay(seq, None))
    return stays


def is_within(seq: int, stays: Sequence[Stay]) -> bool:
    """Whether the seq lies in one of the stays, their ends included."""
    return any(stay.joined_seq <= seq and (stay.left_seq is None or seq <= stay.left_seq) for stay in stays)
