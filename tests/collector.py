"""A collector for tests: takes spans by OTLP over HTTP, on loopback, as the specification says (protobuf)."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


@dataclass(frozen=True)
class SeenSpan:
    """A span as it came. Ids are hexadecimal; `parent_id` is empty for a root."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    attributes: dict[str, str]
    links: frozenset[str]
    is_error: bool


@dataclass
class Collector:
    """What came, by trace."""

    traces: defaultdict[str, list[SeenSpan]] = field(default_factory=lambda: defaultdict(list))

    def names(self, trace_id: str) -> set[str]:
        return {span.name for span in self.traces[trace_id]}

    async def wait_until(self, is_so: Callable[[], bool], *, within_seconds: float = 60) -> None:
        async with asyncio.timeout(within_seconds):
            while not is_so():
                await asyncio.sleep(0.1)

    async def _take(self, request: web.Request) -> web.Response:
        message = ExportTraceServiceRequest.FromString(await request.read())
        for resource_spans in message.resource_spans:
            service = next(
                each.value.string_value for each in resource_spans.resource.attributes if each.key == "service.name"
            )
            for scope_spans in resource_spans.scope_spans:
                for span in scope_spans.spans:
                    self.traces[span.trace_id.hex()].append(
                        SeenSpan(
                            service,
                            span.name,
                            span.trace_id.hex(),
                            span.span_id.hex(),
                            span.parent_span_id.hex(),
                            span.start_time_unix_nano,
                            span.end_time_unix_nano,
                            {
                                each.key: str(each.value.string_value or each.value.int_value)
                                for each in span.attributes
                            },
                            frozenset(link.span_id.hex() for link in span.links),
                            span.status.code == span.status.STATUS_CODE_ERROR,
                        )
                    )
        return web.Response(
            body=ExportTraceServiceResponse().SerializeToString(), content_type="application/x-protobuf"
        )


@asynccontextmanager
async def collector_at(port: int) -> AsyncIterator[Collector]:
    """A collector that listens as long as the block lasts."""
    collector = Collector()
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_post("/v1/traces", collector._take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, reuse_address=True).start()
    try:
        yield collector
    finally:
        await runner.cleanup()
