"""When a target is tried again, what a letter carries, what an answer means, how a request is signed."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.channels import CODE_LENGTH, encode_secret, hash_code, verification_code
from schemas.redis_keys import Stay
from stream_apps.channels.model import (
    BYTES_PER_DELIVERY,
    MESSAGES_PER_DELIVERY,
    OPEN_AFTER_FAILURES,
    Delivered,
    Health,
    Message,
    Outcome,
    Refused,
    Target,
    TryLater,
    Unavailable,
    cut,
    make_message,
)
from stream_apps.channels.signatures import sign
from stream_apps.channels.webhook import read_answer
from stream_apps.stays import is_within, stays_of

FAILED = TryLater("It answers 500.")


def health(*, longest: float = 900, jitter: float = 1.0, is_failing: bool = False) -> Health:
    return Health(longest_pause_seconds=longest, random=lambda: jitter, is_failing=is_failing)


def test_a_target_that_fails_is_paused_longer_and_longer_up_to_a_limit() -> None:
    target = health(longest=10)
    assert [target.note([FAILED]) for _ in range(6)] == [1, 2, 4, 8, 10, 10]


def test_a_pause_is_between_its_half_and_its_whole() -> None:
    assert health(jitter=0.0).note([FAILED]) == 0.5
    assert health(jitter=1.0).note([FAILED]) == 1.0


def test_the_circuit_opens_after_some_failures_and_closes_at_the_first_success() -> None:
    target = health()
    for _ in range(OPEN_AFTER_FAILURES):
        assert not target.is_open
        target.note([FAILED])
    assert target.is_open
    assert target.note([Delivered()]) == 0
    assert not target.is_open


def test_a_round_in_which_anything_was_taken_is_no_failure() -> None:
    target = health()
    assert target.note([FAILED, Delivered(), FAILED]) == 0
    assert target.note([]) == 0


def test_a_target_that_failed_before_is_only_probed() -> None:
    assert health(is_failing=True).is_open


def test_a_target_that_asks_for_time_gets_it_within_the_limit() -> None:
    assert health().note([TryLater("503", after_seconds=60)]) == 60
    assert health(longest=30).note([TryLater("503", after_seconds=60)]) == 30


@given(st.lists(st.lists(st.sampled_from([Delivered(), FAILED, Refused("x"), Unavailable("x")]), max_size=8)))
def test_a_pause_never_exceeds_the_limit(rounds: list[list[Outcome]]) -> None:
    target = health(longest=7)
    assert all(0 <= target.note(outcomes) <= 7 for outcomes in rounds)


def messages_of(sizes: Sequence[int]) -> list[Message]:
    return [Message(str(seq), seq, "a", None, "", {}, size=size) for seq, size in enumerate(sizes, 1)]


@given(st.lists(st.integers(1, 2 * BYTES_PER_DELIVERY), min_size=1, max_size=150))
def test_a_letter_carries_the_first_messages_and_at_least_one(sizes: list[int]) -> None:
    messages = messages_of(sizes)
    carried = cut(messages)
    assert 1 <= len(carried) <= MESSAGES_PER_DELIVERY
    assert list(carried) == messages[: len(carried)]
    assert len(carried) == 1 or sum(message.size for message in carried) <= BYTES_PER_DELIVERY


def test_a_letter_carries_as_many_messages_as_may_be() -> None:
    assert len(cut(messages_of([10] * 150))) == MESSAGES_PER_DELIVERY


def test_a_message_is_as_its_latest_change_made_it() -> None:
    payload = json.dumps({"body": {"type": "text", "text": "a"}, "created_at": "2026-01-02T03:04:05.000000Z"})
    edit = ("MessageEdited", json.dumps({"body": {"type": "text", "text": "b"}}))
    plain = make_message("m", 2, "a", "Alice", payload, None)
    edited = make_message("m", 2, "a", "Alice", payload, edit)
    deleted = make_message("m", 2, "a", "Alice", payload, ("MessageDeleted", "{}"))
    assert (plain.body, plain.is_edited, plain.is_deleted) == ({"type": "text", "text": "a"}, False, False)
    assert (edited.body, edited.is_edited, edited.is_deleted) == ({"type": "text", "text": "b"}, True, False)
    assert (deleted.body, deleted.is_deleted) == (None, True)


@pytest.mark.parametrize(
    ("status", "retry_after", "outcome"),
    [
        (200, None, Delivered()),
        (204, None, Delivered()),
        (410, None, Refused("It answers 410: it is gone.")),
        (301, None, TryLater("It answers 301, and redirects are not followed.")),
        (404, None, TryLater("It answers 404.")),
        (429, "7", TryLater("It answers 429.", after_seconds=7)),
        (503, "99999999999999999999", TryLater("It answers 503.", after_seconds=3600)),
        (503, "tomorrow", TryLater("It answers 503.")),
    ],
)
def test_an_answer_means(status: int, retry_after: str | None, outcome: Outcome) -> None:
    assert read_answer(status, retry_after) == outcome


def test_a_request_is_signed_as_standard_webhooks_has_it() -> None:
    """The example of the specification's own libraries."""
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}', [secret, b"other"])
    assert headers["webhook-id"] == "msg_p5jXN8AQM9LWM0D4loKWxJek"
    assert headers["webhook-timestamp"] == "1614265330"
    first, second = headers["webhook-signature"].split()
    assert first == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert second.startswith("v1,")
    assert second != first


def test_a_code_belongs_to_one_secret_and_one_setting_and_is_read_as_people_type_it() -> None:
    code = verification_code(b"s" * 32, "channel")
    assert len(code) == CODE_LENGTH
    assert code != verification_code(b"t" * 32, "channel")
    assert code != verification_code(b"s" * 32, "other")
    assert hash_code(code) == hash_code(f" {code[:5].lower()}-{code[5:]} ")
    assert encode_secret(b"\0" * 3) == "whsec_AAAA"


def test_a_target_shows_neither_its_address_nor_its_secrets() -> None:
    shown = repr(Target("id", "user", "webhook", "https://example.org/hidden", (b"key",)))
    assert "hidden" not in shown
    assert "key" not in shown


def test_stays_are_told_by_comings_and_goings() -> None:
    stays = stays_of(
        [(1, "ConversationCreated"), (4, "ParticipantLeft"), (4, "ParticipantLeft"), (9, "ParticipantJoined")]
    )
    assert stays == [Stay(1, 4), Stay(9, None)]
    assert [seq for seq in range(12) if is_within(seq, stays)] == [1, 2, 3, 4, 9, 10, 11]
