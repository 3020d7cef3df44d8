"""Records as spans: the sampled ones alone, each where it was and when."""

from __future__ import annotations

import time
from typing import NamedTuple

from schemas.topics import CONVERSATION_EVENTS, RECEIPT_EVENTS
from schemas.traces import TraceContext, begin_trace
from stream_apps.tracing import RecordSpans, traces_of
from tests.fakes import RecordedSpans

CREATED_AT = "2026-01-02T03:04:05.678901Z"
CREATED_NS = 1_767_323_045_678_901_000


class PlainRecord(NamedTuple):
    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]


def record(offset: int, context: TraceContext | None, *, topic: str = CONVERSATION_EVENTS.name) -> PlainRecord:
    headers: list[tuple[str, bytes | None]] = [("id", b"x")]
    if context is not None:
        headers.append(("traceparent", context.traceparent.encode()))
    value = f'{{"seq":{offset},"created_at":"{CREATED_AT}"}}'.encode()
    return PlainRecord(topic, 3, offset, CREATED_NS // 1_000_000 + 4, b"k", value, headers)


def test_sampled_records_have_a_span_each_and_the_others_none() -> None:
    recorded, contexts = RecordedSpans(), [begin_trace(1.0), begin_trace(0.0), begin_trace(1.0)]
    records = [record(offset, context) for offset, context in enumerate(contexts)]
    start_ns = time.time_ns()
    RecordSpans("router", recorded).note([*records, record(9, None)], start_ns)
    first, last, batch = recorded.spans
    assert [span.name for span in recorded.spans] == ["router conversation.events"] * 2 + [
        "router conversation.events batch"
    ]
    assert [first.parent, last.parent] == [contexts[0], contexts[2]]
    assert (first.start_ns, first.kind) == (start_ns, "consumer")
    assert first.end_ns >= start_ns
    assert (first.attributes["messaging.kafka.offset"], last.attributes["messaging.kafka.offset"]) == (0, 2)
    assert batch.attributes == {"batch.size": 4, "batch.sampled": 2}


def test_the_timeline_app_tells_as_well_how_a_record_came_to_kafka() -> None:
    recorded, context = RecordedSpans(), begin_trace(1.0)
    RecordSpans("timeline", recorded, tells_append=True).note([record(1, context)], time.time_ns())
    append = recorded.spans[0]
    assert (append.name, append.parent, append.kind) == ("append conversation.events", context, "producer")
    assert (append.start_ns, append.end_ns) == (CREATED_NS, (CREATED_NS // 1_000_000 + 4) * 1_000_000)


def test_a_topic_that_does_not_say_when_it_took_a_record_has_no_such_span() -> None:
    recorded = RecordedSpans()
    receipt = record(1, begin_trace(1.0), topic=RECEIPT_EVENTS.name)
    RecordSpans("timeline", recorded, tells_append=True).note([receipt], time.time_ns())
    assert [span.name for span in recorded.spans] == ["timeline receipt.events", "timeline receipt.events batch"]


def test_a_header_that_is_no_traceparent_is_passed_over() -> None:
    recorded = RecordedSpans()
    broken = record(1, None)._replace(headers=[("traceparent", b"\xff1"), ("id", None)])
    RecordSpans("router", recorded).note([broken], time.time_ns())
    assert recorded.spans == []


async def test_what_waits_is_exported_when_the_app_stops() -> None:
    recorded = RecordedSpans()
    await RecordSpans("router", recorded).close()
    assert recorded.is_closed
    await RecordSpans("router", None).close()


def test_a_log_line_names_the_first_sampled_traces() -> None:
    contexts = [begin_trace(1.0) for _ in range(5)]
    records = [record(0, begin_trace(0.0)), *(record(offset, context) for offset, context in enumerate(contexts))]
    assert traces_of(records) == f" (trace {', '.join(context.trace_id for context in contexts[:3])})"
    assert traces_of(records[:1]) == ""
