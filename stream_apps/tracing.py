"""Traces on the stream side: a span for each sampled record that a stream app has applied. Off without a collector."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from infra.telemetry.spans import Attributes, Batch, Item, Recorder, Span, record_batch
from schemas.envelope import HEADER_TRACEPARENT
from schemas.passages import find_created_us
from schemas.topics import CONVERSATION_EVENTS
from schemas.traces import TraceContext, find_sampled, follow
from stream_apps.records import Record

LOGGED_TRACES = 3
"""Of the records of a batch, in a log line."""


class RecordSpans:
    """Records what one app does with records. A part of it: what waits is exported when the app stops. `tells_append`:
    this app's spans tell as well when Kafka appended a record, since nobody on the way there has spans."""

    def __init__(self, app: str, recorder: Recorder | None, *, tells_append: bool = False) -> None:
        self._app = app
        self._recorder = recorder
        self._tells_append = tells_append

    async def open(self) -> None:
        """Nothing: spans are taken from the beginning."""

    async def close(self) -> None:
        """Exports what waits, for a few seconds at the most."""
        if self._recorder is not None:
            await asyncio.to_thread(self._recorder.close)

    def note(self, records: Sequence[Record], start_ns: int) -> None:
        """A batch that was taken at `start_ns` (nanoseconds since 1970) is applied."""
        if self._recorder is None:
            return
        by_topic: dict[str, list[Item]] = {}
        for record, parent in find_sampled_records(records):
            by_topic.setdefault(record.topic, []).append(Item(parent, attributes_of(record)))
            if self._tells_append and (appended := find_append(record, parent)) is not None:
                self._recorder.record(appended)
        end_ns = time.time_ns()
        for topic, items in by_topic.items():
            name = f"{self._app} {topic}"
            record_batch(
                self._recorder, Batch(f"{name} batch", name, "consumer", start_ns, end_ns, len(records)), items
            )


def find_sampled_records(records: Iterable[Record]) -> Iterator[tuple[Record, TraceContext]]:
    """The records whose trace is sampled."""
    for record in records:
        for name, value in record.headers:
            if name == HEADER_TRACEPARENT and value:
                context = find_sampled(value.decode("ascii", "replace"))
                if context is not None:
                    yield record, context
                break


def traces_of(records: Iterable[Record]) -> str:
    """For a log line about records: ` (trace …)` with the ids of the first sampled ones; nothing if there are none."""
    ids = list(dict.fromkeys(context.trace_id for _, context in islice(find_sampled_records(records), LOGGED_TRACES)))
    return f" (trace {', '.join(ids)})" if ids else ""


def find_append(record: Record, parent: TraceContext) -> Span | None:
    """The way from the log to Kafka, as a span: from when the event got its seq to when its record was appended (a
    millisecond, cut off). None on topics that do not tell that."""
    created_us = find_created_us(record.value or b"") if record.topic == CONVERSATION_EVENTS.name else None
    if created_us is None:
        return None
    name = f"append {record.topic}"
    start_ns, end_ns = created_us * 1000, record.timestamp * 1_000_000
    return Span(name, follow(parent), parent, start_ns, max(start_ns, end_ns), "producer", attributes_of(record))


def attributes_of(record: Record) -> Attributes:
    """Where Kafka has it, in the words of OpenTelemetry's conventions."""
    return {
        "messaging.system": "kafka",
        "messaging.destination.name": record.topic,
        "messaging.destination.partition.id": str(record.partition),
        "messaging.kafka.offset": record.offset,
    }
