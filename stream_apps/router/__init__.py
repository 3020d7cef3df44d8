"""The router app: finds out over which channels each message is to be delivered, and to whom.

`faust -A stream_apps.router worker` finds the app as the attribute `app`, which is wired when it is first asked for.
"""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "app":
        from stream_apps.router.app import create_app  # noqa: PLC0415 - importing must have no effect
        from stream_apps.settings import StreamSettings  # noqa: PLC0415

        globals()["app"] = create_app(StreamSettings())
        return globals()["app"]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
