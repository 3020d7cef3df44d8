"""The spans of events on their way to live clients: one for each event and process, and one for each of the first
clients that it was sent to."""

from __future__ import annotations

import time

from infra.telemetry.spans import Attributes, Recorder, Span
from schemas.traces import TraceContext, find_sampled, follow

MOST_CLIENTS = 8
"""Of one event and process: a conversation may have thousands, who are all sent it in the same moment."""


class Sending:
    """One sampled event on its way to the clients of this process."""

    def __init__(self, recorder: Recorder, parent: TraceContext, seq: int) -> None:
        self._recorder = recorder
        self._parent = parent
        self._seq = seq
        self._context = follow(parent)
        self._start_ns = time.time_ns()
        self._places = MOST_CLIENTS

    def take_place(self) -> bool:
        """Whether this client's sending is to be told."""
        self._places -= 1
        return self._places >= 0

    def note_sent(self, transport: str) -> None:
        """A client whose place was taken has been sent the event."""
        attributes: Attributes = {"chat4all.transport": transport, "chat4all.seq": self._seq}
        context = follow(self._context)
        self._recorder.record(
            Span("send", context, self._context, self._start_ns, time.time_ns(), "producer", attributes)
        )

    def note_fan_out(self, watchers: int) -> None:
        """Everybody who watches has been told."""
        attributes = {"chat4all.watchers": watchers, "chat4all.seq": self._seq}
        self._recorder.record(
            Span("fan out", self._context, self._parent, self._start_ns, time.time_ns(), "consumer", attributes)
        )


def begin_sending(recorder: Recorder | None, traceparent: str | None, seq: int) -> Sending | None:
    """An event has come from Redis; None if its trace is not sampled, or no traces are recorded."""
    if recorder is None or (parent := find_sampled(traceparent)) is None:
        return None
    return Sending(recorder, parent, seq)
