"""What clients may ask for, and the log entries that come of it."""

from __future__ import annotations

import json
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ingest_api.conversations.model import CreateConversation, created_entry
from ingest_api.messages.model import SendMessage, message_entry
from ingest_api.telemetry import trace_context
from ingest_api.users.model import RegisterUser
from schemas.events import ConversationCreated, MessageSent, parse_event

CONVERSATION_ID, ACTOR_ID, MESSAGE_ID = str(uuid4()), str(uuid4()), str(uuid4())
TRACEPARENT = "00-" + "1" * 32 + "-" + "2" * 16 + "-01"


def as_stored(tail: str) -> str:
    """The payload as append_entries writes it."""
    return '{"seq":1,"created_at":"2026-01-02T03:04:05.678901Z",' + tail


storable_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=300)


@given(text=storable_text, reply_to=st.none() | st.uuids())
def test_a_messages_entry_is_a_payload_that_tells_the_same(text: str, reply_to: UUID | None) -> None:
    command = SendMessage.model_validate({"body": {"type": "text", "text": text}, "reply_to": reply_to})
    entry = message_entry(
        command,
        message_id=MESSAGE_ID,
        conversation_id=CONVERSATION_ID,
        actor_id=ACTOR_ID,
        traceparent=TRACEPARENT,
    )
    event = parse_event(as_stored(entry.tail))
    assert isinstance(event, MessageSent)
    assert event.body.model_dump() == {"type": "text", "text": text}
    assert (event.reply_to, str(event.message_id)) == (reply_to, MESSAGE_ID)
    assert (entry.event_id, entry.subject_id) == (MESSAGE_ID, str(reply_to) if reply_to else None)


def test_a_creators_conversation_names_everyone_once() -> None:
    bob = uuid4()
    command = CreateConversation.model_validate({"title": "hello", "participants": [bob, ACTOR_ID, bob]})
    entry = created_entry(command, CONVERSATION_ID, ACTOR_ID, TRACEPARENT)
    event = parse_event(as_stored(entry.tail))
    assert isinstance(event, ConversationCreated)
    assert [str(user_id) for user_id in event.participants] == [ACTOR_ID, str(bob)]
    assert (event.title, entry.event_id) == ("hello", CONVERSATION_ID)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"body": {"type": "text"}},
        {"body": {"type": "text", "text": ""}},
        {"body": {"type": "text", "text": "a\0b"}},
        {"body": {"type": "text", "text": "x" * 16_001}},
        {"body": {"type": "video", "text": "x"}},
        {"body": {"type": "text", "text": "x", "colour": "red"}},
        {"body": {"type": "text", "text": "x"}, "message_id": "42"},
        {"body": {"type": "text", "text": "x"}, "reply-to": str(uuid4())},
        {"body": {"type": "text", "text": 1}},
    ],
)
def test_a_malformed_message_is_refused(body: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SendMessage.model_validate(body)


def test_a_lone_surrogate_is_refused() -> None:
    with pytest.raises(ValidationError):
        SendMessage.model_validate(json.loads('{"body": {"type": "text", "text": "\\ud800"}}'))


def test_usernames_are_lower_case() -> None:
    assert RegisterUser.model_validate({"username": "Alice.B", "password": "12345678"}).username == "alice.b"


@pytest.mark.parametrize("username", ["al", "a" * 33, "al ice", "-alice", "älice", "alice\n", "a/b/c"])
def test_a_malformed_username_is_refused(username: str) -> None:
    with pytest.raises(ValidationError):
        RegisterUser.model_validate({"username": username, "password": "12345678"})


def test_a_password_shows_in_no_repr() -> None:
    assert "correct horse" not in repr(RegisterUser.model_validate({"username": "alice", "password": "correct horse"}))


def test_a_well_formed_trace_context_is_kept() -> None:
    assert trace_context(TRACEPARENT) == TRACEPARENT


@pytest.mark.parametrize(
    "traceparent",
    [None, "", "00-" + "0" * 32 + "-" + "2" * 16 + "-01", TRACEPARENT.upper().replace("1", "A"), TRACEPARENT + '","x'],
)
def test_a_malformed_trace_context_is_replaced(traceparent: str | None) -> None:
    replaced = trace_context(traceparent)
    assert replaced != traceparent
    assert trace_context(replaced) == replaced
