"""Logs: one JSON object per line, each with the request and the trace that it belongs to."""

from __future__ import annotations

import logging
from contextvars import ContextVar
from typing import NamedTuple

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter
from starlette.types import Scope


class RequestContext(NamedTuple):
    """The request that a task works on."""

    request_id: bytes
    traceparent: str
    scope: Scope


current_request: ContextVar[RequestContext | None] = ContextVar("current_request", default=None)


class _Context(logging.Filter):
    """Adds the request's ids to every record (uvicorn's too)."""

    def filter(self, record: logging.LogRecord) -> bool:
        context = current_request.get()
        if context is not None:
            record.request_id, record.trace_id = context.request_id.decode(), context.traceparent[3:35]
        return True


def configure_logging(level: str) -> None:
    """Sends all logs of this process to standard error, as JSON. What a log line says beyond its sentence goes into
    members of their own (logging's `extra`)."""
    handler = logging.StreamHandler()
    handler.addFilter(_Context())
    handler.setFormatter(
        JsonFormatter(
            "%(levelname)s %(name)s %(message)s",
            rename_fields={"levelname": "level", "name": "logger"},
            timestamp="time",
            reserved_attrs=[*RESERVED_ATTRS, "color_message"],
        )
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("authlib").setLevel(logging.INFO)  # at DEBUG it would log tokens
