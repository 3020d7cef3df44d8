"""What clients may ask for, and the log entries that come of it."""

from __future__ import annotations

import json
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ingest_api.conversations.model import CreateConversation, created_entry
from ingest_api.log_writer import NewEntry, split_at_dependencies
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


FILE = {"type": "file", "url": "https://a.test/b?c=d", "name": "b", "size": 1, "sha256": "0" * 64}


@given(
    name=storable_text.filter(lambda text: len(text) <= 255),
    size=st.integers(0, 2**53 - 1),
    digest=st.binary(min_size=32, max_size=32),
)
def test_a_files_body_is_stored_as_it_was_sent(name: str, size: int, digest: bytes) -> None:
    body = {**FILE, "name": name, "size": size, "sha256": digest.hex()}
    command = SendMessage.model_validate_json(json.dumps({"body": body}))
    event = parse_event(
        as_stored(
            message_entry(
                command,
                message_id=MESSAGE_ID,
                conversation_id=CONVERSATION_ID,
                actor_id=ACTOR_ID,
                traceparent=TRACEPARENT,
            ).tail
        )
    )
    assert isinstance(event, MessageSent)
    assert event.body.model_dump() == body


@pytest.mark.parametrize(
    "changes",
    [
        {"url": "ftp://a.test/b"},
        {"url": "javascript:alert(1)"},
        {"url": "/b"},
        {"url": "https://a.test/" + "b" * 2000},
        {"url": "https://a.test/\0"},
        {"name": ""},
        {"name": "b" * 256},
        {"name": "b\0"},
        {"size": -1},
        {"size": "1"},
        {"size": True},
        {"size": 2**53},
        {"sha256": "0" * 63},
        {"sha256": "A" * 64},
        {"sha256": "0" * 64 + "\n"},
        {"text": "x"},
    ],
)
def test_a_malformed_file_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SendMessage.model_validate_json(json.dumps({"body": {**FILE, **changes}}))


@given(message_id=st.text(max_size=40))
def test_an_id_is_a_uuid_or_refused(message_id: str) -> None:
    document = {"body": {"type": "text", "text": "x"}, "message_id": message_id}
    try:
        UUID(message_id)
    except ValueError:
        with pytest.raises(ValidationError):
            SendMessage.model_validate(document)
    else:
        assert SendMessage.model_validate(document).message_id == UUID(message_id)


def entry_about(event_id: str, subject_id: str | None, kind: str = "MessageSent") -> NewEntry:
    return NewEntry(event_id, CONVERSATION_ID, ACTOR_ID, kind, subject_id, "}", TRACEPARENT)


_some_id = st.sampled_from("abcdefg")


@given(
    st.lists(
        st.builds(
            entry_about,
            _some_id,
            st.none() | _some_id,
            st.sampled_from(["MessageSent", "MessageEdited", "MessageDeleted"]),
        ),
        min_size=1,
    )
)
def test_no_run_holds_an_entry_about_what_it_changes_before(entries: list[NewEntry]) -> None:
    runs = split_at_dependencies(entries)
    assert [entry for run in runs for entry in run] == entries
    for run in runs:
        for position, entry in enumerate(run):
            before = {e.event_id for e in run[:position]} | {
                e.subject_id for e in run[:position] if e.type != "MessageSent"
            }
            assert entry.subject_id is None or entry.subject_id not in before


def test_entries_about_nothing_go_in_one_run() -> None:
    entries = [entry_about(str(n), None) for n in range(300)]
    assert split_at_dependencies(entries) == [entries]
