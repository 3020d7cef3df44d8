"""Spans on their way to a real collector, and what becomes of them when it is away."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter

import pytest

from infra.telemetry.otlp import CLOSE_SECONDS, QUEUE_SPANS, OtlpRecorder
from infra.telemetry.spans import Span
from schemas.traces import TraceContext, begin_trace, follow
from tests.collector import collector_at
from tests.integration.servers import free_port


class Counts:
    def __init__(self) -> None:
        self.all: Counter[str] = Counter()

    def sent(self, spans: int) -> None:
        self.all["sent"] += spans

    def dropped(self, spans: int, reason: str) -> None:
        self.all[reason] += spans

    async def until(self, count: int, *names: str) -> None:
        async with asyncio.timeout(60):
            while sum(self.all[name] for name in names) < count:
                await asyncio.sleep(0.05)


def span(parent: TraceContext) -> Span:
    return Span("hop", follow(parent), parent, 1_000, 2_000, "consumer", {"n": 7}, (parent,), "it failed")


async def test_a_span_arrives_as_it_was_told() -> None:
    counts, port, parent = Counts(), free_port(), begin_trace(1.0)
    async with collector_at(port) as collector:
        recorder = OtlpRecorder(f"http://127.0.0.1:{port}", "a-service", counts)
        told = span(parent)
        recorder.record(told)
        recorder.record(Span("root", parent, None, 500, 3_000))
        await asyncio.to_thread(recorder.close)
    hop, root = collector.traces[parent.trace_id]
    assert (hop.service, hop.name) == ("a-service", "hop")
    assert (hop.span_id, hop.parent_id) == (told.context.span_id, parent.span_id)
    assert (hop.start_ns, hop.end_ns, hop.attributes, hop.is_error) == (1_000, 2_000, {"n": "7"}, True)
    assert hop.links == {parent.span_id}
    assert (root.name, root.span_id, root.parent_id, root.is_error) == ("root", parent.span_id, "", False)
    assert counts.all == {"sent": 2}


async def test_a_collector_that_is_away_costs_spans_and_one_line_and_nobody_waits(
    caplog: pytest.LogCaptureFixture,
) -> None:
    counts, port = Counts(), free_port()
    caplog.set_level(logging.INFO)
    recorder = OtlpRecorder(f"http://127.0.0.1:{port}", "a-service", counts)
    for _ in range(2000):
        recorder.record(span(begin_trace(1.0)))
    await counts.until(2000, "collector")
    async with collector_at(port):
        recorder.record(span(begin_trace(1.0)))
        await counts.until(1, "sent")
    await asyncio.to_thread(recorder.close)
    assert counts.all == {"collector": 2000, "sent": 1}
    lines = [record.getMessage() for record in caplog.records]
    assert [line for line in lines if "does not take spans" in line] == [
        f"the collector at http://127.0.0.1:{port} does not take spans; they are dropped and counted"
    ]
    assert sum("takes spans again" in line for line in lines) == 1


async def test_a_collector_that_does_not_answer_fills_the_queue_and_does_not_hold_up_the_end() -> None:
    counts, port = Counts(), free_port()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", port):
        recorder = OtlpRecorder(f"http://127.0.0.1:{port}", "a-service", counts)
        for _ in range(2 * QUEUE_SPANS):
            recorder.record(span(begin_trace(1.0)))
        assert counts.all["queue_full"] > 0
        began = time.monotonic()
        await asyncio.to_thread(recorder.close)
        assert time.monotonic() - began < CLOSE_SECONDS + 2
    assert counts.all["sent"] == 0
