"""What a span is here: a fact that is told when it is over. Nothing is current, nothing is started: a hop measures two
times, and what is not sampled costs it a look at one character."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Literal, NamedTuple, Protocol

from schemas.traces import TraceContext, begin_trace, follow

Kind = Literal["internal", "server", "client", "producer", "consumer"]
Attributes = Mapping[str, str | int | float | bool]

NO_ATTRIBUTES: Attributes = MappingProxyType({})
MOST_LINKS = 100
"""A batch is linked to so many of its spans, at the most: collectors refuse more than 128."""


class Span(NamedTuple):
    """One hop of one trace. Times are nanoseconds since 1970; `parent` is where it hangs (None: it begins the trace);
    `error` is why it failed."""

    name: str
    context: TraceContext
    parent: TraceContext | None
    start_ns: int
    end_ns: int
    kind: Kind = "internal"
    attributes: Attributes = NO_ATTRIBUTES
    links: Sequence[TraceContext] = ()
    error: str | None = None


class Recorder(Protocol):
    """Takes spans. It neither blocks nor raises; what it cannot keep it drops, and counts."""

    def record(self, span: Span) -> None: ...

    def close(self) -> None:
        """Exports what waits, for a few seconds at the most. Blocks."""


class Counts(Protocol):
    """What counts spans, from several threads."""

    def sent(self, spans: int) -> None:
        """The collector has taken these."""

    def dropped(self, spans: int, reason: str) -> None:
        """These are lost: `queue_full`, or `collector` if it did not take them."""


def open_recorder(endpoint: str, service: str, counts: Counts) -> Recorder | None:
    """What exports the spans of one program (`service`) to the collector at an address without a path, such as
    http://127.0.0.1:4318; None without one, and then no exporter is loaded."""
    if not endpoint:
        return None
    from infra.telemetry.otlp import OtlpRecorder  # noqa: PLC0415 - it takes a quarter of a second

    return OtlpRecorder(endpoint, service, counts)


@contextmanager
def exporting(recorder: Recorder | None) -> Iterator[None]:
    """Exports what waits at the end."""
    try:
        yield
    finally:
        if recorder is not None:
            recorder.close()


class Item(NamedTuple):
    """What became of one sampled item of a batch."""

    parent: TraceContext
    attributes: Attributes = NO_ATTRIBUTES
    error: str | None = None


class Batch(NamedTuple):
    """Work that was done for many at once. `name` is the batch's, `item_name` that of the span of each item."""

    name: str
    item_name: str
    kind: Kind
    start_ns: int
    end_ns: int
    size: int


def record_batch(recorder: Recorder, batch: Batch, items: Iterable[Item]) -> None:
    """A span for each sampled item, in the item's own trace, so that this is whole; each is linked to the batch's span,
    which has a trace of its own and is linked to them. Nothing if no item is sampled."""
    whole = begin_trace(1.0)
    links: list[TraceContext] = []
    for item in items:
        context = follow(item.parent)
        links.append(context)
        recorder.record(
            Span(
                batch.item_name,
                context,
                item.parent,
                batch.start_ns,
                batch.end_ns,
                batch.kind,
                item.attributes,
                (whole,),
                item.error,
            )
        )
    if links:
        attributes = {"batch.size": batch.size, "batch.sampled": len(links)}
        recorder.record(
            Span(batch.name, whole, None, batch.start_ns, batch.end_ns, "internal", attributes, links[:MOST_LINKS])
        )
