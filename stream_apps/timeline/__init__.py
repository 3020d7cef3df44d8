"""The timeline app: applies conversation events to the Redis tables.

`faust -A stream_apps.timeline worker` finds the app as the attribute `app`, which is wired when it is first asked for.
"""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "app":
        from stream_apps.settings import StreamSettings  # noqa: PLC0415
        from stream_apps.timeline.app import create_app  # noqa: PLC0415 - importing must have no effect

        globals()["app"] = create_app(StreamSettings())
        return globals()["app"]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
