"""How many dead letters are too many."""

from __future__ import annotations

import uuid

import pytest

from schemas.ids import conversation_key
from stream_apps.dead_letter_limit import DeadLetterLimit, TooManyDeadLetters, name_of


def test_the_limit_is_of_conversations_within_an_hour() -> None:
    now = 0.0
    limit = DeadLetterLimit(2, clock=lambda: now)
    for name in ("a", "b"):
        limit.check(name, "why")
        limit.note(name)
    with pytest.raises(TooManyDeadLetters, match=r"of 2 conversations .* another one is to be: why"):
        limit.check("c", "why")
    now = 3601.0
    limit.check("c", "why")


def test_one_conversation_never_reaches_it() -> None:
    limit = DeadLetterLimit(2)
    for _ in range(1000):
        limit.check("a", "why")
        limit.note("a")
    limit.check("b", "why")


def test_what_was_set_aside_before_counts_from_when_it_was() -> None:
    limit = DeadLetterLimit(1, clock=lambda: 10_000.0)
    limit.note("long ago", 6_000.0)
    limit.check("a", "why")
    limit.note("lately", 9_000.0)
    with pytest.raises(TooManyDeadLetters):
        limit.check("a", "why")


def test_a_record_without_a_conversation_counts_by_itself() -> None:
    conversation_id = str(uuid.uuid4())
    key = conversation_key(conversation_id).encode()
    assert name_of(key, "t", 1, 7) == name_of(key, "t", 2, 9) == conversation_id
    assert name_of(b"nobody", "t", 1, 7) == "t/1/7"
    assert name_of(None, "t", 1, 7) != name_of(None, "t", 1, 8)
