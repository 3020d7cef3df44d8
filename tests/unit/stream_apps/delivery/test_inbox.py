"""The inbox: its order, its lines, its pages."""

from __future__ import annotations

import json
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_apps.delivery.inbox import (
    InboxConversation,
    Line,
    MalformedInboxCursor,
    decode_place,
    encode_place,
    make_line,
    make_page,
)

times = st.integers(0, 5).map(lambda second: f"2030-01-01T00:00:0{second}.000000Z")


def line(active_at: str, conversation_id: str) -> Line:
    conversation = InboxConversation(conversation_id=conversation_id, title=None, seq=1, last_message=None)
    return Line(active_at, conversation)


@given(st.lists(st.tuples(times, st.uuids().map(str)), unique_by=lambda pair: pair[1]), st.integers(1, 5))
def test_pages_show_every_conversation_once_most_recently_active_first(
    pairs: list[tuple[str, str]], limit: int
) -> None:
    lines = [line(*pair) for pair in pairs]
    shown: list[str] = []
    cursor = None
    while True:
        page = make_page(lines, limit=limit, cursor=cursor)
        assert len(page.conversations) <= limit
        shown += [conversation.conversation_id for conversation in page.conversations]
        cursor = page.next
        if cursor is None:
            break
    assert shown == [conversation_id for _, conversation_id in sorted(pairs, reverse=True)]


def test_a_conversation_that_moves_up_between_pages_hides_no_other() -> None:
    lines = [line(f"2030-01-01T00:00:0{second}.000000Z", str(uuid.uuid4())) for second in range(4)]
    first = make_page(lines, limit=2, cursor=None)
    lines[0] = line("2030-01-01T00:00:09.000000Z", lines[0].conversation.conversation_id)
    second = make_page(lines, limit=2, cursor=first.next)
    assert [c.conversation_id for c in second.conversations] == [lines[1].conversation.conversation_id]


def test_a_line_shows_the_last_message() -> None:
    message = {
        "message_id": str(uuid.uuid4()),
        "actor_id": str(uuid.uuid4()),
        "seq": 7,
        "created_at": "2030-01-01T00:00:00.000000Z",
        "body": {"type": "text", "text": "hi"},
    }
    made = make_line(
        "c", seq=8, title="t", last_message=json.dumps(message | {"more": 1}).encode(), last_entry=b"unused"
    )
    assert made.active_at == message["created_at"]
    assert made.conversation.last_message is not None
    assert made.conversation.last_message.model_dump() == message


def test_without_a_message_the_last_entry_tells_the_time() -> None:
    made = make_line("c", seq=1, title=None, last_message=None, last_entry=b'{"created_at": "2030"}')
    assert (made.active_at, made.conversation.last_message) == ("2030", None)


@given(times, st.uuids().map(str))
def test_a_place_survives_encoding(active_at: str, conversation_id: str) -> None:
    assert decode_place(encode_place((active_at, conversation_id))) == (active_at, conversation_id)


@given(st.text(max_size=80))
def test_text_that_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(MalformedInboxCursor):
        decode_place(text)
