"""The canary's conversations cover the partitions, and its ledger loses nothing by itself."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from aiokafka.partitioner import DefaultPartitioner
from hypothesis import given
from hypothesis import strategies as st

from schemas.ids import conversation_key
from stream_apps.canary.model import Arrival, Ledger, choose_conversations, hop_seconds, murmur2, partition_of


@given(st.uuids())
def test_a_conversation_is_in_the_partition_that_kafkas_clients_choose(number: uuid.UUID) -> None:
    partitions = list(range(12))
    chosen = DefaultPartitioner()(conversation_key(str(number)).encode(), partitions, partitions)
    assert partition_of(str(number), 12) == chosen


@given(st.binary(max_size=40))
def test_keys_of_any_length_are_hashed_as_kafka_does(data: bytes) -> None:
    partitions = list(range(1000))
    assert (murmur2(data) & 0x7FFFFFFF) % 1000 == DefaultPartitioner()(data, partitions, partitions)


def test_every_partition_has_its_conversation_the_same_one_at_every_start() -> None:
    user_id = str(uuid.uuid4())
    chosen = choose_conversations(user_id, 12)
    assert [partition_of(conversation_id, 12) for conversation_id in chosen] == list(range(12))
    assert choose_conversations(user_id, 12) == chosen
    assert not set(chosen) & set(choose_conversations(str(uuid.uuid4()), 12))


def test_a_message_that_comes_back_is_timed_and_forgotten() -> None:
    ledger = Ledger(lost_after_seconds=30)
    ledger.send("a", 3, now=10.0)
    ledger.accept("a")
    assert ledger.arrive("a", now=10.5) == Arrival(3, 0.5)
    assert ledger.arrive("a", now=10.6) is None
    assert ledger.give_up(now=100.0) == []


def test_a_message_may_come_back_before_its_answer() -> None:
    ledger = Ledger(lost_after_seconds=30)
    ledger.send("a", 3, now=10.0)
    assert ledger.arrive("a", now=12.0) == Arrival(3, 2.0)
    ledger.accept("a")
    assert ledger.waiting == 0


def test_an_accepted_message_that_stays_away_is_lost_once_and_late_when_it_comes() -> None:
    ledger = Ledger(lost_after_seconds=30)
    ledger.send("a", 3, now=0.0)
    ledger.accept("a")
    assert ledger.give_up(now=30.0) == []
    assert ledger.give_up(now=30.1) == [3]
    assert ledger.give_up(now=60.0) == []
    assert ledger.arrive("a", now=61.0) == Arrival(3, 61.0, is_late=True)


def test_what_was_not_accepted_is_not_lost() -> None:
    ledger = Ledger(lost_after_seconds=30)
    for message_id in ("refused", "still being sent"):
        ledger.send(message_id, 0, now=0.0)
    ledger.refuse("refused")
    assert ledger.give_up(now=100.0) == []
    assert ledger.waiting == 1


def test_hops_are_told_as_far_as_they_are_known() -> None:
    hops: dict[str, Any] = {
        "accepted_at": "2026-01-02T03:04:05.678901Z",
        "committed_at": "2026-01-02T03:04:05.680401Z",
        "appended_at": "2026-01-02T03:04:05.680000Z",
        "applied_at": None,
    }
    assert hop_seconds(hops) == pytest.approx({"commit": 0.0015, "append": 0.0})
    later = {**hops, "committed_at": None, "applied_at": "2026-01-02T03:04:05.684000Z"}
    assert hop_seconds(later) == pytest.approx({"apply": 0.004})
