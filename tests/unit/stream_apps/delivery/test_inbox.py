"""The inbox: its order, its lines, its pages."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.redis_keys import TIMELINE_LENGTH
from stream_apps.delivery.inbox import (
    Line,
    MalformedInboxCursor,
    choose_lines,
    decode_place,
    encode_place,
    make_line,
    make_page,
)
from stream_apps.log_reader import ConversationSummary, Membership

times = st.integers(0, 5).map(lambda second: f"2030-01-01T00:00:0{second}.000000Z")


def summary(**changes: Any) -> ConversationSummary:
    empty = ConversationSummary(Membership(1, None, 8), "t", None, None, None, 0)
    return replace(empty, **changes)


def line(active_at: str, conversation_id: str) -> Line:
    return Line(active_at, conversation_id, summary(), None)


@given(st.lists(st.tuples(times, st.uuids().map(str)), unique_by=lambda pair: pair[1]), st.integers(1, 5))
def test_pages_show_every_conversation_once_most_recently_active_first(
    pairs: list[tuple[str, str]], limit: int
) -> None:
    lines = [line(*pair) for pair in pairs]
    shown: list[str] = []
    cursor = None
    while True:
        chosen, cursor = choose_lines(lines, limit=limit, cursor=cursor)
        assert len(chosen) <= limit
        shown += [each.conversation_id for each in chosen]
        if cursor is None:
            break
    assert shown == [conversation_id for _, conversation_id in sorted(pairs, reverse=True)]


def test_a_conversation_that_moves_up_between_pages_hides_no_other() -> None:
    lines = [line(f"2030-01-01T00:00:0{second}.000000Z", str(uuid.uuid4())) for second in range(4)]
    _, following = choose_lines(lines, limit=2, cursor=None)
    lines[0] = line("2030-01-01T00:00:09.000000Z", lines[0].conversation_id)
    chosen, _ = choose_lines(lines, limit=2, cursor=following)
    assert [c.conversation_id for c in chosen] == [lines[1].conversation_id]


MESSAGE = {
    "message_id": str(uuid.uuid4()),
    "conversation_id": "c",
    "actor_id": str(uuid.uuid4()),
    "seq": 7,
    "created_at": "2030-01-01T00:00:00.000000Z",
    "body": {"type": "text", "text": "hi"},
}


def change(**changes: Any) -> bytes:
    return json.dumps(
        {"type": "MessageEdited", "message_id": MESSAGE["message_id"], "body": {}, "created_at": "2031"} | changes
    ).encode()


def test_a_line_shows_the_last_message() -> None:
    made = make_line("c", summary(last_message=json.dumps(MESSAGE | {"more": 1}).encode(), last_entry=b"unused"))
    assert made.active_at == MESSAGE["created_at"]
    assert made.last_message is not None
    expected = {**MESSAGE, "edited": False, "deleted": False}
    del expected["conversation_id"]
    assert made.last_message.model_dump() == expected


def test_the_last_message_is_shown_as_it_is_now() -> None:
    payload = json.dumps(MESSAGE).encode()
    edited = make_line("c", summary(last_message=payload, last_change=change())).last_message
    assert edited is not None
    assert (edited.body, edited.edited) == ({}, True)
    deleted = make_line("c", summary(last_message=payload, last_change=change(type="MessageDeleted"))).last_message
    assert deleted is not None
    assert (deleted.body, deleted.deleted) == (None, True)


def test_a_change_of_another_message_says_nothing_of_the_last_one() -> None:
    other = change(message_id=str(uuid.uuid4()), type="MessageDeleted")
    made = make_line("c", summary(last_message=json.dumps(MESSAGE).encode(), last_change=other))
    assert made.last_message is not None
    assert not made.last_message.deleted


def test_a_message_from_before_the_caller_joined_is_not_shown() -> None:
    late = summary(membership=Membership(8, None, 8), last_message=json.dumps(MESSAGE).encode())
    assert make_line("c", late).last_message is None


def test_without_a_message_the_last_entry_tells_the_time() -> None:
    made = make_line("c", summary(last_entry=b'{"created_at": "2030"}'))
    assert (made.active_at, made.last_message) == ("2030", None)


@pytest.mark.parametrize(
    ("membership", "read_seq", "expected"),
    [
        (Membership(1, None, 8), 0, (1, 8)),
        (Membership(1, None, 8), 6, (7, 8)),
        (Membership(5, None, 8), 0, (5, 8)),
        (Membership(1, 6, 8), 2, (3, 6)),
        (Membership(1, None, 5000), 0, (5001 - TIMELINE_LENGTH, 5000)),
    ],
)
def test_unread_is_what_lies_after_what_was_read_and_is_to_be_seen(
    membership: Membership, read_seq: int, expected: tuple[int, int]
) -> None:
    assert make_line("c", summary(membership=membership, read_seq=read_seq)).unread_range == expected


def test_a_page_says_how_far_a_conversation_is_for_the_caller() -> None:
    left = Line("2030", "c", summary(membership=Membership(1, 6, 8)), None)
    page = make_page([left], {"c": 3}, None)
    (shown,) = page.conversations
    assert (shown.seq, shown.left_seq, shown.unread_count) == (6, 6, 3)


@given(times, st.uuids().map(str))
def test_a_place_survives_encoding(active_at: str, conversation_id: str) -> None:
    assert decode_place(encode_place((active_at, conversation_id))) == (active_at, conversation_id)


@given(st.text(max_size=80))
def test_text_that_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(MalformedInboxCursor):
        decode_place(text)
