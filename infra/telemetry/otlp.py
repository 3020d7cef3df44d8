"""Exports spans by OTLP over HTTP, with OpenTelemetry's SDK: a bounded queue, a thread of its own, and a collector that
may be away."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from infra.telemetry.spans import Counts, Span
from schemas.traces import TraceContext

logger = logging.getLogger(__name__)

QUEUE_SPANS = 8192
"""Spans that may wait, some 20 MB. The newest are dropped when it is full: the others are of traces begun before."""
BATCH_SPANS = 512
DELAY_SECONDS = 1.0
TIMEOUT_SECONDS = 2.0
"""How long the collector may take for a batch, tries included."""
CLOSE_SECONDS = 3.0

_KINDS = {
    "internal": SpanKind.INTERNAL,
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
    "producer": SpanKind.PRODUCER,
    "consumer": SpanKind.CONSUMER,
}


class OtlpRecorder:
    """See open_recorder. What an operator adds by OpenTelemetry's own variables (OTEL_EXPORTER_OTLP_HEADERS,
    OTEL_RESOURCE_ATTRIBUTES) counts."""

    def __init__(self, endpoint: str, service: str, counts: Counts) -> None:
        # Our own lines say once that the collector is away, not at each try.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        self._counts = counts
        self._ids = _ChosenIds()
        self._waiting = _Waiting()
        exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=TIMEOUT_SECONDS)
        self._exporter = _CountingExporter(exporter, endpoint, counts, self._waiting)
        self._provider = TracerProvider(
            sampler=ALWAYS_ON,  # whoever began the trace has decided
            resource=Resource.create({"service.name": service}),
            shutdown_on_exit=False,
            id_generator=self._ids,
        )
        self._processor = BatchSpanProcessor(
            self._exporter,
            max_queue_size=QUEUE_SPANS + BATCH_SPANS,
            schedule_delay_millis=DELAY_SECONDS * 1000,
            max_export_batch_size=BATCH_SPANS,
        )
        self._provider.add_span_processor(self._processor)
        self._tracer = self._provider.get_tracer("chat4all")

    def record(self, span: Span) -> None:
        """See Recorder. For one thread alone: the event loop's."""
        if not self._waiting.add():
            self._counts.dropped(1, "queue_full")
            return
        self._ids.choose(span.context)
        parent = set_span_in_context(NonRecordingSpan(_sdk_context(span.parent))) if span.parent is not None else None
        started = self._tracer.start_span(
            span.name,
            context=parent,
            kind=_KINDS[span.kind],
            attributes=span.attributes,
            links=[Link(_sdk_context(each)) for each in span.links],
            start_time=span.start_ns,
        )
        if span.error is not None:
            started.set_status(Status(StatusCode.ERROR, span.error))
        started.end(max(span.start_ns, span.end_ns))

    def close(self) -> None:
        """See Recorder. A collector that is away is not tried again."""
        self._exporter.is_closing = True
        ending = threading.Thread(target=self._processor.shutdown, name="spans' end", daemon=True)
        ending.start()
        ending.join(CLOSE_SECONDS)


class _Waiting:
    """How many spans wait for the exporter."""

    def __init__(self) -> None:
        self._added = self._taken = 0

    def add(self) -> bool:
        """One more, if there is room."""
        if self._added - self._taken >= QUEUE_SPANS:
            return False
        self._added += 1
        return True

    def take(self, spans: int) -> None:
        """So many less. (One thread adds, another one takes.)"""
        self._taken += spans


class _ChosenIds(IdGenerator):
    """Ids that are known before the SDK makes the span, since they have travelled."""

    def __init__(self) -> None:
        self._context = TraceContext("", "", is_sampled=True)

    def choose(self, context: TraceContext) -> None:
        """Those of the next span."""
        self._context = context

    def generate_span_id(self) -> int:
        return int(self._context.span_id, 16)

    def generate_trace_id(self) -> int:
        return int(self._context.trace_id, 16)


class _CountingExporter(SpanExporter):
    """Counts what the collector takes, and says when it goes and when it is back. Runs on the processor's thread."""

    def __init__(self, exporter: SpanExporter, endpoint: str, counts: Counts, waiting: _Waiting) -> None:
        self._exporter = exporter
        self._endpoint = endpoint
        self._counts = counts
        self._waiting = waiting
        self._is_away = False
        self.is_closing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self._waiting.take(len(spans))
        result = SpanExportResult.FAILURE
        if not (self.is_closing and self._is_away):
            result = self._exporter.export(spans)
            self._note(is_away=result is not SpanExportResult.SUCCESS)
        if result is SpanExportResult.SUCCESS:
            self._counts.sent(len(spans))
        else:
            self._counts.dropped(len(spans), "collector")
        return result

    def _note(self, *, is_away: bool) -> None:
        if is_away and not self._is_away:
            logger.warning("the collector at %s does not take spans; they are dropped and counted", self._endpoint)
        elif self._is_away and not is_away:
            logger.info("the collector at %s takes spans again", self._endpoint)
        self._is_away = is_away

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return True


def _sdk_context(context: TraceContext) -> SpanContext:
    return SpanContext(
        int(context.trace_id, 16),
        int(context.span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
    )
