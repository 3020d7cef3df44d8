"""A conversation as it was when someone left it, folded from its log. Pure. For former participants only: what is
there now is in the tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from schemas.events import ConversationCreated, ParticipantJoined, ParticipantLeft, TitleChanged, parse_event
from schemas.redis_keys import Participation, Receipt
from stream_apps.log_reader import ConversationDetails, LogEntry


def conversation_as_of(seq: int, structure: Sequence[LogEntry], receipts: Mapping[str, Receipt]) -> ConversationDetails:
    """The conversation when it had come to a seq. `structure` is the entries up to there that tell who was in it, and
    its title; `receipts` are those of now. An entry that breaks its schema changes nothing (the tables passed it over
    too)."""
    title: str | None = None
    participants: dict[str, Participation] = {}
    for entry in structure:
        try:
            event = parse_event(entry.payload)
        except ValidationError:
            continue
        match event:
            case ConversationCreated():
                title = event.title
                for user_id in event.participants:
                    role = "admin" if user_id == event.actor_id else "member"
                    participants[str(user_id)] = Participation(entry.seq, None, role)
            case ParticipantJoined():
                participants.pop(str(event.user_id), None)
                participants[str(event.user_id)] = Participation(entry.seq, None, event.role)
            case ParticipantLeft():
                if (left := str(event.user_id)) in participants:
                    participants[left] = participants[left]._replace(left_seq=entry.seq)
                if (successor := str(event.successor_id)) in participants:
                    participants[successor] = participants[successor]._replace(role="admin")
            case TitleChanged():
                title = event.title
    return ConversationDetails(
        title=title,
        last_seq=seq,
        participants=dict(sorted(participants.items(), key=lambda item: (item[1].joined_seq, item[0]))),
        receipts={
            user_id: Receipt(min(receipt.delivered_seq, seq), min(receipt.read_seq, seq))
            for user_id, receipt in receipts.items()
            if user_id in participants
        },
    )
