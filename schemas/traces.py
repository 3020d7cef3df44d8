"""The trace context that a message carries on its whole way (W3C Trace Context, section 3.2): reading, writing, and who
decides about it. Pure."""

from __future__ import annotations

import re
import secrets
from typing import NamedTuple

_TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")
_ODD = frozenset("13579bdf")


class TraceContext(NamedTuple):
    """A span's place: hexadecimal ids, and whether its trace is sampled. Whoever begins the trace decides that, and
    every later hop follows."""

    trace_id: str
    span_id: str
    is_sampled: bool

    @property
    def traceparent(self) -> str:
        """As it travels."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.is_sampled else '00'}"


def find_context(traceparent: str | None) -> TraceContext | None:
    """The context that a traceparent tells, or None if it is absent or malformed."""
    found = _TRACEPARENT.fullmatch(traceparent) if traceparent is not None else None
    return None if found is None else TraceContext(found[1], found[2], found[3][1] in _ODD)


def find_sampled(traceparent: str | None) -> TraceContext | None:
    """The same, if the trace is sampled. (Of the others only the last character is looked at: every hop of every
    message comes here.)"""
    return find_context(traceparent) if traceparent and traceparent[-1] in _ODD else None


def begin_trace(ratio: float) -> TraceContext:
    """A new trace, of which `ratio` (0 to 1) are sampled."""
    ids = secrets.token_hex(24)
    return TraceContext(ids[:32], ids[32:], is_chosen(ids[:32], ratio))


def is_chosen(trace_id: str, ratio: float) -> bool:
    """Whether a trace is among the sampled ones: decided by the trace's own id, so that everybody who decides says the
    same (as OpenTelemetry's TraceIdRatioBased does)."""
    return int(trace_id[16:], 16) < ratio * 2**64


def follow(context: TraceContext) -> TraceContext:
    """A new span's place in the same trace."""
    return context._replace(span_id=secrets.token_hex(8))
