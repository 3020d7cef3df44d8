"""A sampled event's way to live clients: told when it is with the transport, for the first clients of it."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry

from schemas.tokens import Principal
from schemas.traces import begin_trace
from stream_apps.delivery.live.client import ClientLimits, LiveClient
from stream_apps.delivery.live.sending import MOST_CLIENTS, Sending, begin_sending
from stream_apps.delivery.sse import SSE
from stream_apps.delivery.telemetry import StreamMetrics
from tests.fakes import RecordedSpans


def client() -> LiveClient:
    principal = Principal(user_id="u", client_id="c", scopes=frozenset(), expires_at=int(time.time()) + 60)
    return LiveClient(principal, SSE, ClientLimits(16, 65_536, 15.0), StreamMetrics(CollectorRegistry()))


async def test_an_event_is_sent_when_its_chunk_is_with_the_transport() -> None:
    recorded, parent = RecordedSpans(), begin_trace(1.0)
    sending, live = Sending(recorded, parent, 7), client()
    await live.next_chunk()
    live.push(b"another event")
    live.push(b"the event", sending)
    live.note_sent()
    assert recorded.spans == []
    await live.next_chunk()
    assert recorded.spans == []
    live.note_sent()
    live.note_sent()
    sending.note_fan_out(1)
    sent, fan_out = recorded.spans
    assert (sent.name, fan_out.name) == ("send", "fan out")
    assert sent.parent == fan_out.context
    assert fan_out.parent == parent
    assert sent.attributes == {"chat4all.transport": "sse", "chat4all.seq": 7}
    assert fan_out.attributes == {"chat4all.watchers": 1, "chat4all.seq": 7}


async def test_of_a_crowd_the_first_clients_are_told() -> None:
    recorded = RecordedSpans()
    sending = Sending(recorded, begin_trace(1.0), 7)
    for _ in range(3 * MOST_CLIENTS):
        live = client()
        live.push(b"the event", sending)
        await live.next_chunk()
        live.note_sent()
    assert len(recorded.spans) == MOST_CLIENTS


async def test_a_client_that_is_too_slow_was_not_sent_what_it_lost() -> None:
    recorded, live = RecordedSpans(), client()
    live.push(b"the event", Sending(recorded, begin_trace(1.0), 7))
    for _ in range(20):
        live.push(b"more")
    await live.next_chunk()
    live.note_sent()
    assert recorded.spans == []


def test_what_is_not_sampled_or_not_recorded_has_no_sending() -> None:
    assert begin_sending(RecordedSpans(), begin_trace(0.0).traceparent, 1) is None
    assert begin_sending(RecordedSpans(), None, 1) is None
    assert begin_sending(None, begin_trace(1.0).traceparent, 1) is None
    assert begin_sending(RecordedSpans(), begin_trace(1.0).traceparent, 1) is not None
