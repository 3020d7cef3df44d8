"""Kafka and the stream apps: what waits, how batches go, what could not be applied."""

from __future__ import annotations

from infra.grafana.model import Board, Panel, Query, Row, Unit, quantiles, rate

APPS = ("timeline", "router", "channels")


def _of_each(expression: str, legend: str = "{app}") -> tuple[Query, ...]:
    return tuple(Query(expression.format(app=app), legend.format(app=app)) for app in APPS)


STREAMS = Board(
    "chat4all-streams",
    "Chat4All: Kafka and stream apps",
    "The apps that read Kafka: lag by group and partition, batches, retries, dead letters, audit.",
    (
        Row(
            "What waits",
            (
                Panel(
                    "Lag by app",
                    "Records that are not committed. Spikes of a second are life; a line that only rises is an app that"
                    " cannot keep up, or waits for a server that is away.",
                    Unit.COUNT,
                    _of_each("sum({app}_lag_records)"),
                ),
                Panel(
                    "Timeline's lag by partition",
                    "One partition far above the others: a conversation that is very busy, or one that cannot be"
                    " applied.",
                    Unit.COUNT,
                    (Query("sum by (topic, partition) (timeline_partition_lag_records)", "{{topic}}-{{partition}}"),),
                ),
                Panel(
                    "Seconds without progress",
                    "How long records have waited without a single one being committed. The watchdog ends a worker that"
                    " stands still for too long.",
                    Unit.SECONDS,
                    _of_each("max({app}_seconds_without_progress)"),
                ),
            ),
        ),
        Row(
            "Batches",
            (
                Panel(
                    "Records per second",
                    "Taken from Kafka, by app.",
                    Unit.PER_SECOND,
                    tuple(rate(f"{app}_records_total", app) for app in APPS),
                ),
                Panel(
                    "Records per batch, timeline",
                    "One at a time when there is little to do; the more waits, the larger they get, and the cheaper.",
                    Unit.COUNT,
                    quantiles("timeline_batch_records", 0.5, 0.95),
                ),
                Panel(
                    "Time to apply a batch, p99",
                    "Retries included. For timeline it is one call of Redis; for router, a question to PostgreSQL.",
                    Unit.SECONDS,
                    tuple(
                        Query(query.expression, app)
                        for app in ("timeline", "router")
                        for query in quantiles(f"{app}_apply_seconds", 0.99)
                    ),
                ),
            ),
        ),
        Row(
            "What went wrong, and what was done about it",
            (
                Panel(
                    "Retries",
                    "Batches tried again because Redis, PostgreSQL or Kafka is away. Nothing is skipped.",
                    Unit.PER_SECOND,
                    tuple(rate(f"{app}_retries_total", app) for app in APPS),
                ),
                Panel(
                    "Dead letters in an hour",
                    "Records that could never be applied. Each is a fault: `python -m stream_apps.dead_letters list`.",
                    Unit.COUNT,
                    tuple(Query(f"sum(increase({app}_dead_letters_total[1h]))", app) for app in APPS),
                ),
                Panel(
                    "Duplicates, gaps, rebuilds, repairs",
                    "Duplicates are redeliveries, which are harmless. Gaps are filled from PostgreSQL; repairs mean"
                    " that"
                    " somebody else writes to this Redis.",
                    Unit.PER_SECOND,
                    tuple(
                        rate(f"timeline_{what}_total", what) for what in ("duplicates", "gaps", "rebuilds", "repairs")
                    ),
                ),
                Panel(
                    "Parked conversations",
                    "Conversations whose events cannot be applied just now; they become dead letters if that lasts.",
                    Unit.COUNT,
                    (Query("sum(timeline_parked_conversations)", "parked"),),
                ),
            ),
        ),
        Row(
            "Audit",
            (
                Panel(
                    "Entries compared",
                    "What audit holds against each other of PostgreSQL, Kafka and Redis.",
                    Unit.PER_SECOND,
                    (rate("audit_entries_total", "compared"),),
                ),
                Panel(
                    "Suspects",
                    "What looks like a fault, and may be a matter of time.",
                    Unit.COUNT,
                    (Query("sum(audit_suspects)", "suspects"),),
                ),
                Panel(
                    "Audit looked",
                    "Seconds since the last look; it looks every 2 s.",
                    Unit.SECONDS,
                    (Query("time() - max(audit_last_look_timestamp_seconds)", "ago"),),
                ),
            ),
        ),
    ),
)
