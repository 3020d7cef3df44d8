"""The events and their published descriptions agree."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from uuid import uuid4

import jsonschema
import pytest
import yaml
from pydantic import ValidationError

from schemas.delivery_events import DELIVERY_EVENT_TYPES, REQUEST_EVENT_TYPES
from schemas.ephemeral import EPHEMERAL_EVENT_TYPES
from schemas.events import EVENT_TYPES, RECEIPT_EVENT_TYPES, MessageSent, TextBody, parse_event, parse_receipt
from schemas.json_schemas import ALL_TYPES, FOLDER, json_schema_texts
from schemas.topics import (
    CHANNEL_EMAIL,
    CHANNEL_WEBHOOK,
    CONNECTOR_HEARTBEAT,
    CONVERSATION_EVENTS,
    DELIVERY_EVENTS,
    HEARTBEAT_TABLE,
    RECEIPT_EVENTS,
    TOPICS,
    USER_EVENTS,
)
from schemas.user_events import USER_EVENT_TYPES, parse_user_event


def message_sent(**changes: object) -> dict[str, object]:
    message_id = str(uuid4())
    return {
        "seq": 7,
        "created_at": "2026-01-02T03:04:05.678901Z",
        "event_id": message_id,
        "type": "MessageSent",
        "conversation_id": str(uuid4()),
        "actor_id": str(uuid4()),
        "message_id": message_id,
        "body": {"type": "text", "text": "hi"},
        **changes,
    }


def test_a_payload_is_parsed_as_its_type() -> None:
    event = parse_event(json.dumps(message_sent()))
    assert isinstance(event, MessageSent)
    assert (event.seq, event.body, event.reply_to) == (7, TextBody(type="text", text="hi"), None)


@pytest.mark.parametrize(
    ("event_type", "fields"),
    [
        ("ConversationCreated", {"title": None, "participants": [str(uuid4())]}),
        ("MessageEdited", {"message_id": str(uuid4()), "body": {"type": "text", "text": "hello"}}),
        ("MessageDeleted", {"message_id": str(uuid4())}),
        ("ParticipantJoined", {"user_id": str(uuid4()), "role": "member"}),
        ("ParticipantLeft", {"user_id": str(uuid4())}),
        ("TitleChanged", {"title": None}),
    ],
)
def test_every_type_of_log_entry_is_parsed_as_itself(event_type: str, fields: dict[str, object]) -> None:
    event = {**message_sent(type=event_type), **fields}
    assert type(parse_event(json.dumps(event))) is EVENT_TYPES[event_type]
    jsonschema.validate(event, json.loads((FOLDER / f"{event_type}.json").read_text()))


def test_a_file_is_named_by_its_digest() -> None:
    file = {"type": "file", "url": "https://files.test/a.png", "name": "a.png", "size": 5, "sha256": "0" * 64}
    assert parse_event(json.dumps(message_sent(body=file))).seq == 7
    with pytest.raises(ValidationError):
        parse_event(json.dumps(message_sent(body={**file, "sha256": "none"})))


def test_a_receipt_holds_two_maxima() -> None:
    receipt = {
        "type": "ReceiptAdvanced",
        "event_id": str(uuid4()),
        "conversation_id": str(uuid4()),
        "user_id": str(uuid4()),
        "delivered_seq": 4,
        "read_seq": 3,
        "created_at": "2026-01-02T03:04:05.678901Z",
    }
    parsed = parse_receipt(json.dumps(receipt))
    assert (parsed.delivered_seq, parsed.read_seq) == (4, 3)
    jsonschema.validate(receipt, json.loads((FOLDER / "ReceiptAdvanced.json").read_text()))


@pytest.mark.parametrize("event_type", USER_EVENT_TYPES)
def test_every_event_of_a_user_is_parsed_as_itself(event_type: str) -> None:
    event = {
        "type": event_type,
        "event_id": str(uuid4()),
        "user_id": str(uuid4()),
        "channel": "webhook",
        "channel_id": str(uuid4()),
        "revision": 3,
        "created_at": "2026-01-02T03:04:05.678901Z",
        **({"reason": "410"} if event_type == "ChannelDisabled" else {}),
    }
    assert type(parse_user_event(json.dumps(event))) is USER_EVENT_TYPES[event_type]
    jsonschema.validate(event, json.loads((FOLDER / f"{event_type}.json").read_text()))


@pytest.mark.parametrize(
    "changes",
    [{"seq": 0}, {"type": "SomethingElse"}, {"body": {"type": "text", "text": ""}}, {"message_id": "x"}],
)
def test_a_payload_that_breaks_its_schema_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        parse_event(json.dumps(message_sent(**changes)))


def test_fields_of_a_later_version_are_passed_over() -> None:
    assert parse_event(json.dumps(message_sent(mood="good"))).seq == 7


def test_the_committed_json_schemas_are_the_generated_ones() -> None:
    assert {path.name: path.read_text() for path in FOLDER.glob("*.json")} == json_schema_texts()


def test_a_payload_satisfies_its_published_schema() -> None:
    schema = json.loads((FOLDER / "MessageSent.json").read_text())
    jsonschema.validate(message_sent(), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(message_sent(body={"type": "text"}), schema)


def test_asyncapi_names_every_type_and_the_real_topics() -> None:
    document = yaml.safe_load((Path(FOLDER).parent / "asyncapi.yaml").read_text())
    assert set(document["components"]["messages"]) == set(ALL_TYPES) - set(EPHEMERAL_EVENT_TYPES)
    types_of: dict[str, Collection[str]] = {
        CONVERSATION_EVENTS.name: EVENT_TYPES,
        RECEIPT_EVENTS.name: RECEIPT_EVENT_TYPES,
        USER_EVENTS.name: USER_EVENT_TYPES,
        CHANNEL_WEBHOOK.name: REQUEST_EVENT_TYPES,
        CHANNEL_EMAIL.name: REQUEST_EVENT_TYPES,
        DELIVERY_EVENTS.name: DELIVERY_EVENT_TYPES,
    }
    for topic, types in types_of.items():
        assert set(document["channels"][topic]["messages"]) == set(types)
    internal = {HEARTBEAT_TABLE.name, CONNECTOR_HEARTBEAT.name}
    assert set(document["channels"]) == {topic.name for topic in TOPICS} - internal
    envelope = document["components"]["schemas"]["Envelope"]
    assert set(envelope["properties"]["eventType"]["enum"]) == set(EVENT_TYPES)
    for name, message in document["components"]["messages"].items():
        assert message["payload"] == {"$ref": f"json/{name}.json"}


def test_topic_names_are_unique_and_conversation_events_tells_when_it_was_appended() -> None:
    assert len({topic.name for topic in TOPICS}) == len(TOPICS)
    assert CONVERSATION_EVENTS.full_config()["message.timestamp.type"] == "LogAppendTime"
