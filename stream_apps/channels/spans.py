"""The spans of letters: each sampled message of a letter is told as delivered, or as tried."""

from __future__ import annotations

import time

from infra.telemetry.spans import Batch, Item, Recorder, record_batch
from schemas.traces import find_sampled
from stream_apps.channels.model import Delivered, Letter, Outcome


def record_letter(recorder: Recorder, channel: str, letter: Letter, outcome: Outcome, start_ns: int) -> None:
    """A letter was sent, or tried to be."""
    error = None if isinstance(outcome, Delivered) else type(outcome).__name__.lower()
    name = f"deliver {channel}"
    batch = Batch(f"{name} letter", name, "client", start_ns, time.time_ns(), len(letter.messages))
    parents = [(message.seq, find_sampled(message.traceparent)) for message in letter.messages]
    record_batch(
        recorder,
        batch,
        [Item(parent, {"chat4all.seq": seq}, error) for seq, parent in parents if parent is not None],
    )
