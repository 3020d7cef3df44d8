"""The promise at a glance: is what is accepted kept, ordered and seen, and how soon."""

from __future__ import annotations

from infra.grafana.boards.ingest import NOT_OURS
from infra.grafana.model import Board, Look, Panel, Query, Row, Unit, quantiles, rate

HOPS = {
    "commit": "ingest_api_accepted_to_committed_seconds",
    "append": "timeline_created_to_appended_seconds",
    "apply": "timeline_appended_to_applied_seconds",
    "send": "delivery_applied_to_sent_seconds",
}


def _hops(share: float) -> tuple[Query, ...]:
    return tuple(Query(query.expression, hop) for hop, metric in HOPS.items() for query in quantiles(metric, share))


PROMISE = Board(
    "chat4all-promise",
    "Chat4All: the promise",
    "Whether every accepted message is stored once, in order, and seen: the three objectives, and where time goes.",
    (
        Row(
            "The objectives",
            (
                Panel(
                    "Writes that were answered, one hour",
                    "Requests that did not fail by our fault. The objective is 99.95 % over 30 days.",
                    Unit.SHARE,
                    (
                        Query(
                            f'1 - ((sum(rate(ingest_api_http_requests_total{{{NOT_OURS}, status=~"5.."}}[1h])))'
                            f" or vector(0)) / sum(rate(ingest_api_http_requests_total{{{NOT_OURS}}}[1h]))",
                            "answered",
                        ),
                    ),
                    Look.NUMBER,
                ),
                Panel(
                    "Delivered within a second, one hour",
                    "Messages that were handed to their watchers at most 1 s after they were accepted. The objective is"
                    " 99 %.",
                    Unit.SHARE,
                    (
                        Query(
                            'sum(rate(delivery_accepted_to_sent_seconds_bucket{le="1.0"}[1h]))'
                            " / sum(rate(delivery_accepted_to_sent_seconds_count[1h]))",
                            "within a second",
                        ),
                    ),
                    Look.NUMBER,
                ),
                Panel(
                    "Faults that audit found, one day",
                    "Entries that are missing, doubled, altered or in a wrong place, in PostgreSQL, Kafka or Redis. The"
                    " objective is none.",
                    Unit.COUNT,
                    (Query("sum(increase(audit_faults_total[1d])) or vector(0)", "faults"),),
                    Look.NUMBER,
                ),
                Panel(
                    "Gaps told to clients, one day",
                    "Times that continuity could not be proven: the client refetched, and saw nothing wrong.",
                    Unit.COUNT,
                    (Query("sum(increase(delivery_stream_gaps_total[1d])) or vector(0)", "gaps"),),
                    Look.NUMBER,
                ),
            ),
        ),
        Row(
            "The flow",
            (
                Panel(
                    "Through the system",
                    "Log entries written, records applied, frames published to watchers. The three go together;"
                    " where they"
                    " part, something waits.",
                    Unit.PER_SECOND,
                    (
                        rate("ingest_api_writer_batch_entries_sum", "written"),
                        rate("timeline_records_total", "taken by timeline"),
                        rate("delivery_live_frames_total", "published to watchers"),
                    ),
                ),
                Panel(
                    "What waits",
                    "Before the log writer, and in Kafka for the stream apps.",
                    Unit.COUNT,
                    (
                        Query("sum(ingest_api_writer_queue_entries)", "log writer"),
                        Query("sum(timeline_lag_records)", "timeline"),
                        Query("sum(router_lag_records)", "router"),
                        Query("sum(channels_lag_records)", "channels"),
                    ),
                ),
                Panel(
                    "Admission",
                    "0 green, 1 yellow, 2 orange, 3 red, 4 lost.",
                    Unit.PLAIN,
                    (Query("max(ingest_api_admission_state)", "step"),),
                ),
            ),
        ),
        Row(
            "Where the time goes",
            (
                Panel(
                    "End to end",
                    "From when a message got its seq until delivery had handed it to its watchers' connections.",
                    Unit.SECONDS,
                    quantiles("delivery_accepted_to_sent_seconds", 0.5, 0.95, 0.99, where='way="live"'),
                ),
                Panel(
                    "Each hop, p50",
                    "commit: log writer to disk. append: seq to Kafka, change data capture. apply: Kafka to the tables."
                    " send: Redis to the watchers. docs/hops.md draws them.",
                    Unit.SECONDS,
                    _hops(0.5),
                ),
                Panel(
                    "Each hop, p99",
                    "Which hop the slow messages wait in.",
                    Unit.SECONDS,
                    _hops(0.99),
                ),
                Panel(
                    "Answers to writes",
                    "Until a sender holds the 201.",
                    Unit.SECONDS,
                    quantiles("ingest_api_http_request_seconds", 0.5, 0.99, where=NOT_OURS),
                ),
            ),
        ),
    ),
)
