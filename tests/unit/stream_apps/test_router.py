"""The router's decisions: which records are messages, who gets them, and what is sent for it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pytest

from schemas.delivery_events import DeliveryRequested
from schemas.envelope import Envelope
from schemas.ids import conversation_key
from schemas.redis_keys import Stay
from stream_apps.channels.agents import merge
from stream_apps.channels.settings import ChannelSettings
from stream_apps.log_reader import ChannelTarget
from stream_apps.router.agents import Directory
from stream_apps.router.projection import (
    TARGETS_PER_RECORD,
    MalformedMessage,
    choose_targets,
    find_doubtful,
    make_requests,
    read_message,
    sort_records,
)

CONVERSATION, SENDER, READER = (str(uuid.UUID(int=number, version=4)) for number in range(1, 4))
SENT_AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class FakeRecord(NamedTuple):
    """A record without Kafka."""

    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    topic: str = "conversation.events"
    partition: int = 0
    offset: int = 0
    timestamp: int = 0


def envelope(seq: int = 7, changes: dict[str, object] | None = None) -> Envelope:
    message_id = str(uuid.UUID(int=1000 + seq, version=4))
    payload = {
        "seq": seq,
        "created_at": SENT_AT.isoformat(),
        "event_id": message_id,
        "type": "MessageSent",
        "conversation_id": CONVERSATION,
        "actor_id": SENDER,
        "message_id": message_id,
        "body": {"type": "text", "text": "hi"},
        **(changes or {}),
    }
    return Envelope(CONVERSATION, seq, message_id, "MessageSent", json.dumps(payload).encode(), "00-a-b-01")


def target(
    user_id: str = READER,
    *,
    channel: str = "webhook",
    stay: tuple[int, int | None] = (1, None),
    verified_at: datetime = SENT_AT,
) -> ChannelTarget:
    return ChannelTarget(channel, f"{channel}-{user_id}", user_id, Stay(*stay), verified_at)


def chosen(targets: list[ChannelTarget], *, seq: int = 7, earlier: dict[str, list[Stay]] | None = None) -> list[str]:
    mail = envelope(seq)
    stays = {(CONVERSATION, user_id): found for user_id, found in (earlier or {}).items()}
    return [each.channel_id for each in choose_targets(mail, read_message(mail), targets, stays)]


def test_records_are_sorted_without_reading_payloads() -> None:
    def record(kind: str, *, key: bytes = conversation_key(CONVERSATION).encode()) -> FakeRecord:
        headers = [("id", str(uuid.uuid4()).encode()), ("eventType", kind.encode()), ("seq", b"3")]
        return FakeRecord(key, b"not even JSON", headers)

    mail = sort_records(
        [record("MessageSent"), record("ParticipantJoined"), record("TitleChanged"), record("x", key=b"nonsense")]
    )
    assert [(found.event_type, found.seq) for found, _ in mail.messages] == [("MessageSent", 3)]
    assert (mail.changed, mail.unreadable) == ({CONVERSATION}, 1)


def test_a_participant_with_a_channel_is_chosen_and_the_sender_is_not() -> None:
    assert chosen([target(), target(SENDER)]) == [f"webhook-{READER}"]


@pytest.mark.parametrize(("stay", "is_in"), [((7, None), True), ((1, 7), True), ((1, 6), False)])
def test_who_is_in_the_conversation_at_the_message_is_chosen(stay: tuple[int, int | None], is_in: bool) -> None:
    assert bool(chosen([target(stay=stay)])) is is_in


def test_of_who_came_back_the_earlier_stays_count() -> None:
    back = target(stay=(20, None))
    assert find_doubtful(7, [back, target(SENDER)]) == [READER]
    assert chosen([back], earlier={READER: [Stay(1, 10), Stay(20, None)]}) == [f"webhook-{READER}"]
    assert chosen([back], earlier={READER: [Stay(1, 6), Stay(20, None)]}) == []


def test_what_was_sent_before_a_channel_was_verified_does_not_go_there() -> None:
    assert chosen([target(verified_at=SENT_AT + timedelta(microseconds=1))]) == []


def test_a_channel_that_nobody_can_send_over_is_passed_over() -> None:
    assert chosen([target(channel="pigeon")]) == []


def test_each_channel_gets_a_record_of_its_own_that_is_the_same_again() -> None:
    mail = envelope()
    targets = [
        ChannelTarget("webhook", str(uuid.uuid4()), READER, Stay(1, None), SENT_AT),
        ChannelTarget("email", str(uuid.uuid4()), READER, Stay(1, None), SENT_AT),
    ]
    requests = make_requests(mail, targets)
    assert [request.topic for request in requests] == ["channel.webhook", "channel.email"]
    assert requests == make_requests(mail, targets)
    assert {request.key for request in requests} == {conversation_key(CONVERSATION).encode()}
    event = DeliveryRequested.model_validate_json(requests[0].value or b"")
    assert (event.seq, str(event.message_id), [str(t.channel_id) for t in event.targets]) == (
        7,
        mail.event_id,
        [targets[0].channel_id],
    )
    assert dict(requests[0].headers)["seq"] == b"7"


def test_a_crowd_of_targets_is_told_by_several_records() -> None:
    targets = [
        ChannelTarget("webhook", str(uuid.uuid4()), str(uuid.uuid4()), Stay(1, None), SENT_AT)
        for _ in range(TARGETS_PER_RECORD + 1)
    ]
    events = [DeliveryRequested.model_validate_json(r.value or b"") for r in make_requests(envelope(), targets)]
    assert [len(event.targets) for event in events] == [TARGETS_PER_RECORD, 1]
    assert len({event.event_id for event in events}) == 2


@pytest.mark.parametrize("changes", [{"body": {}}, {"type": "TitleChanged", "title": None}])
def test_a_payload_that_is_no_message_is_told_so(changes: dict[str, object]) -> None:
    with pytest.raises(MalformedMessage):
        read_message(envelope(changes=changes))


def test_requests_of_a_batch_are_one_per_channel_and_conversation() -> None:
    channel_id = str(uuid.uuid4())
    records = [
        (
            FakeRecord(None, None, [], partition=5),
            DeliveryRequested(
                type="DeliveryRequested",
                event_id=uuid.uuid4(),
                conversation_id=uuid.UUID(CONVERSATION),
                seq=seq,
                message_id=uuid.uuid4(),
                targets=[{"user_id": READER, "channel_id": channel_id}],
            ),
        )
        for seq in (4, 9, 6)
    ]
    assert merge(records) == [(channel_id, CONVERSATION, 5, 4, 9)]


class Settings:
    """Postgres as the directory asks it; counts the questions."""

    def __init__(self) -> None:
        self.revision = 1
        self.asked: list[list[str]] = []

    async def read_channel_revision(self) -> int:
        return self.revision

    async def read_channel_targets(self, conversation_ids: Sequence[str]) -> dict[str, list[ChannelTarget]]:
        self.asked.append(list(conversation_ids))
        return {conversation_id: [target()] for conversation_id in conversation_ids}

    async def read_stays(self, conversation_id: str, user_id: str) -> list[Stay]:
        return []


async def test_the_directory_asks_again_only_when_something_changed() -> None:
    settings = Settings()
    directory = Directory(settings, capacity=2)
    await directory.look_up({"a", "b"})
    await directory.look_up({"a", "b"})
    assert settings.asked == [["a", "b"]]
    directory.forget({"a", "unknown"})
    await directory.look_up({"a", "b"})
    assert settings.asked[1:] == [["a"]]
    settings.revision = 2
    assert set(await directory.look_up({"b"})) == {"b"}
    assert settings.asked[2:] == [["b"]]
    directory.forget()
    await directory.look_up({"b"})
    assert settings.asked[3:] == [["b"]]


async def test_the_directory_remembers_no_more_than_it_may() -> None:
    settings = Settings()
    directory = Directory(settings, capacity=2)
    for name in "abc":
        await directory.look_up({name})
    await directory.look_up({"a"})
    assert settings.asked == [["a"], ["b"], ["c"], ["a"]]
    assert set(await directory.look_up(set("abcd"))) == set("abcd")


def test_networks_are_read_as_an_operator_writes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAT4ALL_WEBHOOK_ALLOWED_NETWORKS", "10.0.0.0/8, fd00::/8")
    assert [str(network) for network in ChannelSettings().webhook_allowed_networks] == ["10.0.0.0/8", "fd00::/8"]
