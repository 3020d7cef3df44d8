"""Who decides which traces are sampled, and what is told of requests and commits."""

from __future__ import annotations

from typing import Any

from ingest_api.errors import ConversationNotFound
from ingest_api.log_writer import Appended, NewEntry
from ingest_api.tracing import CommitSpans, Tracing
from schemas.traces import begin_trace, find_context
from tests.fakes import RecordedSpans

SAMPLED = f"00-{'ab' * 16}-{'cd' * 8}-01"
UNSAMPLED = f"00-{'ab' * 16}-{'cd' * 8}-00"


def test_a_callers_decision_is_followed() -> None:
    tracing = Tracing(RecordedSpans(), ratio=0.0)
    traceparent, span = tracing.settle(SAMPLED, may_begin=True)
    context = find_context(traceparent)
    assert span is not None
    assert context == span.context
    assert span.parent == find_context(SAMPLED)
    assert (context.trace_id, context.is_sampled) == ("ab" * 16, True)
    assert context.span_id != "cd" * 8, "what is stored hangs on the request's own span"
    assert Tracing(RecordedSpans(), ratio=1.0).settle(UNSAMPLED, may_begin=True) == (UNSAMPLED, None)


def test_without_a_caller_that_decides_a_share_of_the_writes_is_sampled_and_no_read() -> None:
    tracing = Tracing(RecordedSpans(), ratio=0.25)
    spans = [tracing.settle(None, may_begin=True)[1] for _ in range(2000)]
    assert 350 < sum(span is not None for span in spans) < 650
    assert all(span.parent is None for span in spans if span is not None)
    traceparent, span = Tracing(RecordedSpans(), ratio=1.0).settle("malformed-1", may_begin=False)
    assert span is None
    assert (context := find_context(traceparent)) is not None
    assert not context.is_sampled


def test_a_request_is_told_by_its_route_and_never_by_its_path() -> None:
    recorded = RecordedSpans()
    tracing = Tracing(recorded, ratio=1.0)
    _, span = tracing.settle(SAMPLED, may_begin=True)
    assert span is not None

    class Route:
        path = "/v1/conversations/{conversation_id}/messages"

    scope: dict[str, Any] = {"method": "POST", "path": "/v1/conversations/x/messages", "route": Route()}
    tracing.note_answer(span, scope, 503)
    (told,) = recorded.spans
    assert told.name == "POST /v1/conversations/{conversation_id}/messages"
    assert (told.kind, told.context, told.parent) == ("server", span.context, span.parent)
    assert told.error == "answered 503"
    assert told.attributes["http.response.status_code"] == 503


def test_the_sampled_entries_of_a_commit_are_told_with_what_became_of_them() -> None:
    recorded = RecordedSpans()
    contexts = [begin_trace(ratio) for ratio in (1.0, 0.0, 1.0)]
    entries = [NewEntry("e", "c", "a", "MessageSent", None, "}", context.traceparent) for context in contexts]
    answers = [Appended(1, "now", is_replay=False), Appended(2, "now", is_replay=False), ConversationNotFound()]
    CommitSpans[NewEntry](recorded).note(entries, answers, 10, 20)
    first, last, batch = recorded.spans
    assert (first.parent, first.error) == (contexts[0], None)
    assert (last.parent, last.error) == (contexts[2], "conversation-not-found")
    assert batch.attributes == {"batch.size": 3, "batch.sampled": 2}
