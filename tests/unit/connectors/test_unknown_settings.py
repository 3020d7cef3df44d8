"""A setting that nobody knows is told, with the one that was probably meant."""

from __future__ import annotations

from connectors.unknown_settings import unknown_settings

KNOWN = {"poll.interval.ms", "connector.class", "name"}


def test_a_slip_of_the_pen_is_told_with_what_is_meant() -> None:
    assert unknown_settings({"poll.intervall.ms": "1", "name": "c"}, KNOWN) == [
        "nobody knows the setting poll.intervall.ms; do you mean poll.interval.ms?"
    ]


def test_a_setting_unlike_any_other_is_told_alone() -> None:
    assert unknown_settings({"zzz": "1"}, KNOWN) == ["nobody knows the setting zzz."]


def test_what_is_passed_on_to_others_and_what_debezium_does_not_list_is_taken_as_known() -> None:
    config = {"producer.override.acks": "all", "offset.mismatch.strategy": "trust_offset", "poll.interval.ms": "1"}
    assert unknown_settings(config, KNOWN) == []
