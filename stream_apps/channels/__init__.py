"""The channels app: delivers messages over webhooks and by e-mail, and sends verification codes.

`faust -A stream_apps.channels worker` finds the app as the attribute `app`, which is wired when it is first asked for.
"""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "app":
        from stream_apps.channels.app import create_app  # noqa: PLC0415 - importing must have no effect
        from stream_apps.channels.settings import ChannelSettings  # noqa: PLC0415

        globals()["app"] = create_app(ChannelSettings())
        return globals()["app"]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
