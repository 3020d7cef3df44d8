"""The metrics of the canary."""

from __future__ import annotations

from schemas.metrics import HOP_BUCKETS, PROCESS_METRICS, Label, catalogue, counter, gauge, histogram
from schemas.topics import CONVERSATION_EVENTS

HOPS = ("commit", "append", "apply")
_PARTITION = Label("partition", tuple(map(str, range(CONVERSATION_EVENTS.partitions))))

CATALOGUE = catalogue(
    *PROCESS_METRICS,
    counter("canary_messages_total", "messages", "Messages that were accepted.", _PARTITION),
    counter("canary_unaccepted_total", "messages", "Messages that the API did not accept in time.", _PARTITION),
    counter(
        "canary_lost_total",
        "messages",
        "Accepted messages that had not come back when they should have, those that came later too.",
        _PARTITION,
    ),
    counter("canary_late_total", "messages", "Messages that came back after they had counted as lost."),
    histogram(
        "canary_delivery_seconds",
        "seconds",
        "From before the request until the message came back over the live stream.",
        HOP_BUCKETS,
    ),
    histogram(
        "canary_hop_seconds",
        "seconds",
        "Each hop of a message's way, as the servers' clocks tell it.",
        HOP_BUCKETS,
        Label("hop", HOPS),
    ),
    gauge(
        "canary_last_delivered_timestamp_seconds",
        "seconds",
        "When a message last came back, since 1970; before the first one, when the canary started.",
        _PARTITION,
    ),
    gauge("canary_waiting_messages", "messages", "Messages that are on their way."),
)
