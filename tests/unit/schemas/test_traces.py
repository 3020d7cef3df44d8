"""Trace contexts: read as the W3C says, decided once, followed by everybody."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.traces import TraceContext, begin_trace, find_context, find_sampled, follow, is_chosen

TRACE_ID, SPAN_ID = "ab" * 16, "cd" * 8


@pytest.mark.parametrize(("flags", "is_sampled"), [("00", False), ("01", True), ("02", False), ("03", True)])
def test_the_last_bit_of_the_flags_says_whether_a_trace_is_sampled(flags: str, is_sampled: bool) -> None:
    traceparent = f"00-{TRACE_ID}-{SPAN_ID}-{flags}"
    assert find_context(traceparent) == TraceContext(TRACE_ID, SPAN_ID, is_sampled)
    assert find_sampled(traceparent) == (TraceContext(TRACE_ID, SPAN_ID, is_sampled=True) if is_sampled else None)


@pytest.mark.parametrize(
    "traceparent",
    [
        None,
        "",
        "1",
        f"01-{TRACE_ID}-{SPAN_ID}-01",
        f"00-{'0' * 32}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"00-{TRACE_ID.upper()}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{SPAN_ID}-01-more1",
    ],
)
def test_what_is_malformed_is_no_context(traceparent: str | None) -> None:
    assert find_context(traceparent) is None
    assert find_sampled(traceparent) is None


@given(st.booleans())
def test_a_context_gives_back_what_was_written(is_sampled: bool) -> None:
    context = begin_trace(1.0 if is_sampled else 0.0)
    assert context.is_sampled is is_sampled
    assert find_context(context.traceparent) == context


def test_a_share_of_the_traces_is_chosen_always_the_same_ones() -> None:
    begun = [begin_trace(0.1) for _ in range(5000)]
    assert 350 < sum(context.is_sampled for context in begun) < 650
    assert all(is_chosen(context.trace_id, 0.1) is context.is_sampled for context in begun)
    assert all(is_chosen(context.trace_id, 0.2) for context in begun if context.is_sampled)


def test_who_follows_stays_in_the_trace() -> None:
    first = begin_trace(1.0)
    second = follow(first)
    assert second.span_id != first.span_id
    assert second._replace(span_id=first.span_id) == first
