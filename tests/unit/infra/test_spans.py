"""Batches as spans: each sampled item stays in its own trace, and both sides are linked."""

from __future__ import annotations

import subprocess
import sys

from infra.telemetry.spans import MOST_LINKS, Batch, Item, open_recorder, record_batch
from schemas.traces import begin_trace
from tests.fakes import RecordedSpans


class Counting:
    def sent(self, spans: int) -> None:
        raise AssertionError("nothing is sent")

    def dropped(self, spans: int, reason: str) -> None:
        raise AssertionError("nothing is dropped")


def test_each_item_has_a_span_in_its_own_trace_and_a_link_to_the_batch() -> None:
    recorded = RecordedSpans()
    parents = [begin_trace(1.0) for _ in range(3)]
    items = [Item(parent, {"n": number}, "refused" if number == 2 else None) for number, parent in enumerate(parents)]
    record_batch(recorded, Batch("commit batch", "commit", "internal", 10, 20, size=7), items)

    *spans, batch = recorded.spans
    assert [span.parent for span in spans] == parents
    assert [span.context.trace_id for span in spans] == [parent.trace_id for parent in parents]
    assert [(span.name, span.start_ns, span.end_ns) for span in spans] == [("commit", 10, 20)] * 3
    assert [span.error for span in spans] == [None, None, "refused"]
    assert all(span.links == (batch.context,) for span in spans)
    assert batch.parent is None
    assert list(batch.links) == [span.context for span in spans]
    assert batch.attributes == {"batch.size": 7, "batch.sampled": 3}


def test_a_batch_without_sampled_items_leaves_nothing() -> None:
    recorded = RecordedSpans()
    record_batch(recorded, Batch("commit batch", "commit", "internal", 10, 20, size=7), [])
    assert recorded.spans == []


def test_a_batch_is_linked_to_no_more_spans_than_collectors_take() -> None:
    recorded = RecordedSpans()
    record_batch(recorded, Batch("b", "i", "internal", 1, 2, 1000), [Item(begin_trace(1.0)) for _ in range(1000)])
    assert len(recorded.spans) == 1001
    assert len(recorded.spans[-1].links) == MOST_LINKS


def test_without_a_collector_there_is_no_recorder_and_no_exporter_is_loaded() -> None:
    assert open_recorder("", "service", Counting()) is None
    program = (
        "import sys, ingest_api.app, stream_apps.timeline.app, stream_apps.delivery.app\n"
        "assert 'infra.telemetry.spans' in sys.modules\n"
        "loaded = ('opentelemetry.exporter', 'infra.telemetry.otlp')\n"
        "assert not [name for name in sys.modules if name.startswith(loaded)]\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True)
