"""How an answer says that it repeats an earlier one."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

REPLAY_HEADER = "Idempotency-Replayed"
REPLAY: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A replay: this id and content were accepted before; the first answer again.",
        "headers": {REPLAY_HEADER: {"schema": {"type": "string", "enum": ["true"]}}},
    }
}


def mark_replay(response: Response, is_replay: bool) -> None:
    """Makes the answer of a replay a 200 with the header that says so."""
    if is_replay:
        response.status_code = 200
        response.headers[REPLAY_HEADER] = "true"
