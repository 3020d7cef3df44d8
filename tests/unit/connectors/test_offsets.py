"""What a change of offsets does is said before it is done."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.model import SourceOffset
from connectors.offsets import judge_change, judge_reset, moved_to, position_of
from connectors.slots import Slot, format_bytes, format_lsn, heartbeat_id, heartbeat_seconds, parse_lsn, slot_name


def offset(lsn: object, server: str = "chat4all") -> SourceOffset:
    return SourceOffset(partition={"server": server}, offset={"lsn_proc": lsn, "lsn": lsn})


def slot(confirmed_lsn: int) -> Slot:
    return Slot("s", True, "reserved", confirmed_lsn, 0, 0)


@settings(deadline=None)
@given(st.integers(0, 2**63 - 1))
def test_a_position_is_read_as_it_is_written(position: int) -> None:
    assert parse_lsn(format_lsn(position)) == parse_lsn(str(position)) == position


@pytest.mark.parametrize("text", ["", "x", "1/", "/1", "1/123456789", "-1", "0x10", "1/2/3"])
def test_what_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="16/B374D848"):
        parse_lsn(text)


def test_moving_on_loses_and_moving_back_repeats() -> None:
    ahead = judge_change([offset(100)], [offset(300)], slot(50), current_lsn=400)
    assert (ahead.loses, ahead.refusal) == (True, None)
    assert "between 0/64 and 0/12C (200 B) is never streamed" in ahead.sentence
    back = judge_change([offset(300)], [offset(100)], slot(50), current_lsn=400)
    assert (back.loses, back.refusal) == (False, None)
    assert "is streamed again" in back.sentence
    same = judge_change([offset(300)], [offset(300)], slot(50), current_lsn=400)
    assert "nothing changes" in same.sentence


def test_moving_back_without_knowing_the_slot_says_what_may_happen() -> None:
    effect = judge_change([offset(300)], [offset(100)], None, current_lsn=None)
    assert "the connector will not start" in effect.sentence


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ([offset(10)], "PostgreSQL keeps nothing before 0/32 for the slot s"),
        ([offset(500)], "0/1F4 is not written yet: the log ends at 0/190"),
        ([offset("x")], "names no position"),
        ([offset(True)], "names no position"),
        ([offset(200, server="another")], "for the partition"),
        ([offset(200), offset(201)], "for the partition"),
        ([], "for the partition"),
    ],
)
def test_what_would_not_work_is_refused(target: list[SourceOffset], sentence: str) -> None:
    effect = judge_change([offset(100)], target, slot(50), current_lsn=400)
    assert sentence in (effect.refusal or "")


def test_a_reset_begins_where_the_slot_is() -> None:
    assert "is streamed again" in judge_reset([offset(100)], slot(50)).sentence
    lossy = judge_reset([offset(100)], slot(150))
    assert lossy.loses
    assert "nothing changes" in judge_reset([], slot(150)).sentence
    assert "unknown" in judge_reset([offset(100)], None).sentence


def test_a_moved_offset_keeps_its_partition_and_nothing_else() -> None:
    moved = moved_to(SourceOffset(partition={"server": "s"}, offset={"lsn": 1, "txId": 7}), 5)
    assert moved.partition == {"server": "s"}
    assert position_of(moved) == 5
    assert "txId" not in (moved.offset or {})


def test_what_a_connector_uses_is_read_from_its_settings() -> None:
    config = {
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "slot.name": "s",
        "heartbeat.interval.ms": "5000",
        "heartbeat.action.query": "INSERT INTO cdc_heartbeat (id) values (3) on conflict (id) do nothing",
    }
    assert (slot_name(config), heartbeat_id(config), heartbeat_seconds(config)) == ("s", 3, 5.0)
    assert slot_name(config | {"slot.name": "${env:SLOT}"}) is None
    assert (slot_name({}), heartbeat_id({}), heartbeat_seconds({})) == (None, None, 0.0)
    assert heartbeat_seconds({"heartbeat.interval.ms": "${env:MS}"}) == 0.0


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 << 30, "3.0 GiB")])
def test_bytes_are_written_for_people(count: int, text: str) -> None:
    assert format_bytes(count) == text
