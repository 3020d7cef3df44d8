"""Every event once and in order, whatever comes twice, early, late or not at all."""

from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st

from stream_apps.delivery.live.cursors import CursorWriter, Scope, Sealer
from stream_apps.delivery.live.progress import Progress

ID = str(uuid.uuid4())


def following(after_seq: int = 0) -> Progress:
    progress = Progress(CursorWriter(Scope.EVERY_CONVERSATION, {ID: after_seq}, sealer=Sealer("secret", ID)))
    progress.begin(ID, joined_seq=1)
    return progress


def test_the_next_event_is_told_and_a_duplicate_is_not() -> None:
    progress = following(4)
    assert not progress.take_live(ID, 4)
    assert progress.take_live(ID, 5)
    assert not progress.take_live(ID, 5)
    assert progress.told_seq(ID) == 5
    assert not progress.behind


def test_an_event_too_far_waits_until_the_hole_is_read() -> None:
    progress = following(4)
    assert not progress.take_live(ID, 7)
    assert not progress.take_live(ID, 5), "what is live is left out while something is missing"
    assert dict(progress.behind) == {ID: 7}
    assert [progress.take_read(ID, seq) for seq in (5, 6, 7)] == [True, True, True]
    assert not progress.behind
    assert progress.take_live(ID, 8)


def test_reading_may_go_further_than_what_was_known() -> None:
    progress = following(0)
    progress.learn(ID, 2)
    assert [progress.take_read(ID, seq) for seq in (1, 2, 3)] == [True, True, True]
    assert not progress.take_live(ID, 3)
    assert progress.take_live(ID, 4)


def test_what_is_given_up_is_behind_no_more() -> None:
    progress = following(4)
    progress.take_live(ID, 9)
    progress.skip(ID)
    assert not progress.behind
    assert progress.told_seq(ID) == 9
    assert progress.take_live(ID, 10)


def test_a_conversation_that_is_not_followed_is_passed_over() -> None:
    progress = following()
    other = str(uuid.uuid4())
    assert not progress.take_live(other, 1)
    assert not progress.is_following(other)
    progress.follow(other, joined_seq=3)
    assert progress.take_live(other, 3)


def test_nothing_is_told_beyond_the_seq_at_which_the_user_left() -> None:
    progress = following(4)
    progress.end(ID, 6)
    assert progress.take_live(ID, 5)
    assert not progress.take_live(ID, 9), "there is a hole"
    assert dict(progress.behind) == {ID: 6}
    assert [progress.take_read(ID, seq) for seq in (6, 7)] == [True, False]
    assert progress.is_over(ID)
    assert not progress.is_following(ID)
    assert not progress.behind
    assert not progress.take_live(ID, 7)
    assert not progress.behind


def test_who_comes_back_is_told_from_there_on() -> None:
    progress = following(4)
    progress.end(ID, 4)
    progress.follow(ID, joined_seq=9)
    assert progress.take_live(ID, 9)
    progress.end(ID, 4)
    assert progress.take_live(ID, 10), "that was an earlier stay"


def test_what_is_known_beyond_the_end_is_no_hole() -> None:
    progress = following(4)
    progress.learn(ID, 20)
    progress.end(ID, 5)
    assert dict(progress.behind) == {ID: 5}
    progress.stop(ID)
    assert progress.is_over(ID)
    assert not progress.behind


@given(st.lists(st.tuples(st.sampled_from(["live", "lose", "read", "again", "check"]), st.integers(1, 5)), max_size=60))
def test_every_event_is_told_once_and_in_order(steps: list[tuple[str, int]]) -> None:
    """The log grows; live events arrive, get lost or come again; reads happen at any time."""
    progress = following()
    told: list[int] = []
    log = 0

    def read(limit: int) -> None:
        after_seq = progress.told_seq(ID)
        for seq in range(after_seq + 1, min(after_seq + limit, log) + 1):
            if progress.take_read(ID, seq):
                told.append(seq)

    for step, number in steps:
        if step == "live":
            for _ in range(number):
                log += 1
                if progress.take_live(ID, log):
                    told.append(log)
        elif step == "lose":
            log += number
        elif step == "again":
            for seq in range(max(1, log - number), log + 1):
                if progress.take_live(ID, seq):
                    told.append(seq)
        elif step == "check":
            progress.learn(ID, log)
        elif progress.behind:
            read(number)
    progress.learn(ID, log)
    while progress.behind:
        read(3)
    assert told == list(range(1, log + 1))
    assert progress.told_seq(ID) == log
