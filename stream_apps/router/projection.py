"""The pure part of the router app: messages and who has which channel -> what is to be delivered."""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import ValidationError

from schemas.channels import CHANNELS
from schemas.envelope import (
    HEADER_EVENT_ID,
    HEADER_EVENT_TYPE,
    HEADER_SEQ,
    HEADER_TRACEPARENT,
    Envelope,
    MalformedEnvelope,
    read_envelope,
)
from schemas.events import MessageSent, parse_event
from schemas.ids import conversation_key
from schemas.redis_keys import Stay
from schemas.topics import channel_topic
from stream_apps.log_reader import ChannelTarget
from stream_apps.producer import Outgoing
from stream_apps.records import Record
from stream_apps.stays import is_within

WHO_IS_IN = frozenset({"ConversationCreated", "ParticipantJoined", "ParticipantLeft"})
TARGETS_PER_RECORD = 500

Stays = Mapping[tuple[str, str], Sequence[Stay]]
"""(conversation, user) -> all stays of the user."""


@dataclass(slots=True)
class Mail:
    """What a batch of records says: the messages with their records, the conversations in which someone came or went,
    and how many records could not be read (they are set aside by the timeline app, which reads the same topic)."""

    messages: list[tuple[Envelope, Record]] = field(default_factory=list)
    changed: set[str] = field(default_factory=set)
    unreadable: int = 0


def sort_records(records: Iterable[Record]) -> Mail:
    """The mail in a batch. Payloads are not parsed."""
    mail = Mail()
    for record in records:
        try:
            envelope = read_envelope(record.key, record.headers, record.value)
        except MalformedEnvelope:
            mail.unreadable += 1
            continue
        if envelope.event_type == "MessageSent":
            mail.messages.append((envelope, record))
        elif envelope.event_type in WHO_IS_IN:
            mail.changed.add(envelope.conversation_id)
    return mail


class MalformedMessage(Exception):
    """The payload is not the message that its envelope says."""


def read_message(envelope: Envelope) -> MessageSent:
    """The message of an envelope. Raises MalformedMessage."""
    try:
        message = parse_event(envelope.payload)
    except ValidationError as error:
        raise MalformedMessage(f"MessageSent: {error.errors()[0]['msg']}") from error
    if not isinstance(message, MessageSent):
        raise MalformedMessage(f"the header says MessageSent, the payload {message.type}")
    return message


def find_doubtful(seq: int, targets: Iterable[ChannelTarget]) -> list[str]:
    """The users who came back after this seq, or came first: their latest stay does not tell whether they were in."""
    return [target.user_id for target in targets if seq < target.stay.joined_seq]


def choose_targets(
    envelope: Envelope, message: MessageSent, targets: Collection[ChannelTarget], stays: Stays
) -> list[ChannelTarget]:
    """Those of the targets that the message goes to: participants at its seq other than its sender, whose channel was
    in use when it was sent. `stays` has those of who is doubtful."""
    return [
        target
        for target in targets
        if target.user_id != str(message.actor_id)
        and target.channel in CHANNELS
        and target.verified_at <= message.created_at
        and is_within(envelope.seq, stays.get((envelope.conversation_id, target.user_id), [target.stay]))
    ]


def make_requests(envelope: Envelope, targets: Collection[ChannelTarget]) -> list[Outgoing]:
    """The records that have a message delivered: DeliveryRequested, per channel. The same message makes the same
    events."""
    requests = []
    for channel in CHANNELS:
        chosen = [
            {"user_id": target.user_id, "channel_id": target.channel_id}
            for target in targets
            if target.channel == channel
        ]
        for start in range(0, len(chosen), TARGETS_PER_RECORD):
            requests.append(_request(envelope, channel, start, chosen[start : start + TARGETS_PER_RECORD]))
    return requests


def _request(envelope: Envelope, channel: str, start: int, targets: list[dict[str, str]]) -> Outgoing:
    event_id = str(uuid.uuid5(uuid.UUID(envelope.event_id), f"{channel}:{start}"))
    value = {
        "type": "DeliveryRequested",
        "event_id": event_id,
        "conversation_id": envelope.conversation_id,
        "seq": envelope.seq,
        "message_id": envelope.event_id,
        "targets": targets,
    }
    headers: list[tuple[str, bytes | None]] = [
        (HEADER_EVENT_ID, event_id.encode()),
        (HEADER_EVENT_TYPE, b"DeliveryRequested"),
        (HEADER_SEQ, str(envelope.seq).encode()),
        (HEADER_TRACEPARENT, envelope.traceparent.encode() if envelope.traceparent else None),
    ]
    key = conversation_key(envelope.conversation_id).encode()
    return Outgoing(channel_topic(channel).name, key, json.dumps(value, separators=(",", ":")).encode(), headers)
