"""uvicorn's HTTP protocol with a door: in a crowd (admission/crowd.py) a command waits before any of it is parsed.

What the door looks at is the bytes that have just come. Only a request that is there as a whole is held or refused
here; whatever else it may be (a part of one, several at once, no HTTP at all) goes on to the parser, and to the turns
behind.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import secrets
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from ingest_api.admission.crowd import Crowd
from ingest_api.admission.refusals import LONGEST_RETRY_SECONDS, overloaded
from ingest_api.security.headers import NO_SNIFFING
from ingest_api.telemetry import HttpMetrics
from schemas.problems import MEDIA_TYPE

LINGER_SECONDS = 0.3
"""How long an idle connection stays open when the process is told to end."""
_COMMAND = re.compile(rb"(?:POST|PUT|PATCH|DELETE) /v1/(?!users[ ?])[!-~]* HTTP/1\.1\r\n")
"""The first line of what takes turns (CommandRoute.takes_turns)."""
_LENGTH = re.compile(rb"(?i)\r\ncontent-length:[ \t]*([0-9]{1,7})[ \t]*(?=\r\n)")
_UNUSUAL = re.compile(rb"(?i)\r\n(?:transfer-encoding|expect|upgrade|connection:[^\r]*(?:close|upgrade))")


def is_whole_command(data: bytes) -> bool:
    """Whether the bytes are exactly one request that takes turns, with its body, over a connection that stays open."""
    if _COMMAND.match(data) is None:
        return False
    head_end = data.find(b"\r\n\r\n")
    if head_end < 0:
        return False
    lengths = _LENGTH.findall(data, 0, head_end + 2)
    length = int(lengths[0]) if len(lengths) == 1 else 0
    return len(lengths) <= 1 and len(data) == head_end + 4 + length and _UNUSUAL.search(data, 0, head_end + 2) is None


def _refusals() -> tuple[bytes, ...]:
    answers = []
    for place in range(LONGEST_RETRY_SECONDS):
        error = overloaded(place / (LONGEST_RETRY_SECONDS - 1))
        body = json.dumps(error.document(), ensure_ascii=False).encode()
        headers = {"Content-Type": MEDIA_TYPE, "Content-Length": str(len(body)), **error.headers}
        lines = [f"{name}: {value}\r\n".lower().encode() for name, value in headers.items()]
        lines.append(b"%b: %b\r\n" % NO_SNIFFING)
        answers.append(b"".join(lines) + b"\r\n" + body)
    return tuple(answers)


class DoorProtocol(HttpToolsProtocol):
    """One connection."""

    refusals = _refusals()

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        crowd: Crowd,
        metrics: HttpMetrics,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._crowd = crowd
        self._metrics = metrics
        self._held = b""
        self._is_inside = False
        self._lingers = False

    def data_received(self, data: bytes) -> None:
        if self._held:
            self._held += data
            self.flow.pause_reading()  # not before: who sends nothing more, nearly everyone, costs no system call
        elif self._is_busy() or not is_whole_command(data):
            super().data_received(data)
        elif self._crowd.enter():
            self._is_inside = True
            super().data_received(data)
        else:
            self._unset_keepalive_if_required()
            self._held = data
            self._crowd.hold(self)

    def let_in(self) -> None:
        self._is_inside = True
        self._go_on()

    def refuse(self) -> None:
        if not is_whole_command(self._held):  # more has come meanwhile
            self._go_on()
            return
        self._held = b""
        if self.transport.is_closing():
            return
        self._metrics.count("(any)", "(none)", 503, 0.0)
        head = b"".join(b"%b: %b\r\n" % header for header in self.server_state.default_headers)
        request_id = secrets.token_hex(16).encode()
        answer = random.choice(self.refusals)  # noqa: S311 - spreads those who come back
        self.transport.write(b"%b%bx-request-id: %b\r\n%b" % (STATUS_LINE[503], head, request_id, answer))
        super().on_response_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._leave()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._crowd.forget(self)
        self._leave()

    def shutdown(self) -> None:
        if self._held:  # it is answered that the process ends
            self._crowd.forget(self)
            self._go_on()
        if self._is_busy() or self._lingers:
            super().shutdown()
        else:
            # A command may be on its way over a connection that is idle: it is answered, and not cut off.
            self._lingers = True
            self.loop.call_later(LINGER_SECONDS, self.shutdown)

    def _is_busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _go_on(self) -> None:
        data, self._held = self._held, b""
        if not self.transport.is_closing():
            self.flow.resume_reading()
            super().data_received(data)

    def _leave(self) -> None:
        if self._is_inside:
            self._is_inside = False
            self._crowd.leave()
