"""What delivery measures of the hops."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from schemas.passages import Passage, format_us
from schemas.redis_keys import LiveFrame
from stream_apps.delivery.telemetry import StreamMetrics

ACCEPTED_US = 1_767_323_045_678_901
END_TO_END = "delivery_accepted_to_sent_seconds"


def payload() -> bytes:
    return f'{{"seq":7,"created_at":"{format_us(ACCEPTED_US)}","event_id":"x"}}'.encode()


def frame(*, applied_us: int | None) -> LiveFrame:
    passage = None if applied_us is None else Passage(None, None, applied_us)
    return LiveFrame(7, "MessageSent", "x", payload(), passage)


def test_a_frame_is_measured_from_its_application_and_from_its_acceptance() -> None:
    registry = CollectorRegistry()
    metrics = StreamMetrics(registry)
    metrics.observe_sent([frame(applied_us=ACCEPTED_US + 4000), frame(applied_us=None)], sent_us=ACCEPTED_US + 6000)
    assert registry.get_sample_value("delivery_applied_to_sent_seconds_count") == 1
    assert registry.get_sample_value("delivery_applied_to_sent_seconds_sum") == pytest.approx(0.002)
    assert registry.get_sample_value(f"{END_TO_END}_count", {"way": "live"}) == 2
    assert registry.get_sample_value(f"{END_TO_END}_sum", {"way": "live"}) == pytest.approx(0.012)
    assert registry.get_sample_value(f"{END_TO_END}_count", {"way": "caught_up"}) == 0


def test_many_frames_are_measured_by_some_of_them() -> None:
    registry = CollectorRegistry()
    StreamMetrics(registry).observe_sent([frame(applied_us=ACCEPTED_US)] * 1000, sent_us=ACCEPTED_US)
    count = registry.get_sample_value(f"{END_TO_END}_count", {"way": "live"})
    assert count == pytest.approx(1000, rel=0.02)


def test_what_a_client_missed_while_it_was_away_is_not_late() -> None:
    registry = CollectorRegistry()
    metrics = StreamMetrics(registry)
    metrics.observe_caught_up(payload(), sent_us=ACCEPTED_US + 10**6, since_us=ACCEPTED_US + 1)
    metrics.observe_caught_up(payload(), sent_us=ACCEPTED_US + 10**6, since_us=ACCEPTED_US)
    metrics.observe_caught_up(b"{}", sent_us=ACCEPTED_US, since_us=0)
    assert registry.get_sample_value(f"{END_TO_END}_count", {"way": "caught_up"}) == 1
    assert registry.get_sample_value(f"{END_TO_END}_sum", {"way": "caught_up"}) == pytest.approx(1)
