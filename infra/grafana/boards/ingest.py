"""The write side: what comes in, how fast it is answered, what is refused and why."""

from __future__ import annotations

from infra.grafana.model import Board, Look, Panel, Query, Row, Unit, or_zero, quantiles, rate

NOT_OURS = 'route!~"/healthz|/readyz|/metrics"'

INGEST = Board(
    "chat4all-ingest",
    "Chat4All: ingest",
    "The API that takes writes: requests, the log writer, admission, rate limits.",
    (
        Row(
            "Requests",
            (
                Panel(
                    "Requests by route",
                    "Answered requests, whatever the answer. A route that falls to zero at once is worth a look.",
                    Unit.REQUESTS_PER_SECOND,
                    (rate("ingest_api_http_requests_total", "{{method}} {{route}}", by="method, route"),),
                ),
                Panel(
                    "Requests by status",
                    "201 and 200 are what clients want; 503 with Retry-After is the API protecting itself; 500 is"
                    " ours.",
                    Unit.REQUESTS_PER_SECOND,
                    (rate("ingest_api_http_requests_total", "{{status}}", by="status"),),
                ),
                Panel(
                    "Share of failed requests",
                    "Answers 5xx of all answers to clients. The objective allows 0.05 % over 30 days.",
                    Unit.SHARE,
                    (
                        Query(
                            f"((sum(rate(ingest_api_http_requests_total{{{NOT_OURS},"
                            f' status=~"5.."}}[$__rate_interval])))'
                            f" or vector(0)) /"
                            f" sum(rate(ingest_api_http_requests_total{{{NOT_OURS}}}[$__rate_interval]))",
                            "failed",
                        ),
                    ),
                ),
            ),
        ),
        Row(
            "How long it takes",
            (
                Panel(
                    "Answer time, all routes",
                    "From the request's headers to the answer's start. p99 far above p50 means that requests wait in a"
                    " queue: see the log writer.",
                    Unit.SECONDS,
                    quantiles("ingest_api_http_request_seconds", 0.5, 0.95, 0.99, where=NOT_OURS),
                ),
                Panel(
                    "p99 by route",
                    "The slowest hundredth of each route.",
                    Unit.SECONDS,
                    (
                        Query(
                            "histogram_quantile(0.99, sum by (le, route)"
                            f" (rate(ingest_api_http_request_seconds_bucket{{{NOT_OURS}}}[$__rate_interval])))",
                            "{{route}}",
                        ),
                    ),
                ),
                Panel(
                    "Commit time",
                    "From taking a batch to its answers: PostgreSQL's part of an answer.",
                    Unit.SECONDS,
                    quantiles("ingest_api_writer_commit_seconds", 0.5, 0.95, 0.99),
                ),
            ),
        ),
        Row(
            "The log writer",
            (
                Panel(
                    "Entries per commit",
                    "Batches form by themselves while a commit is under way; near 256 the writer is at its limit.",
                    Unit.COUNT,
                    quantiles("ingest_api_writer_batch_entries", 0.5, 0.95),
                ),
                Panel(
                    "Entries and commits",
                    "Log entries written, and the commits that they took.",
                    Unit.PER_SECOND,
                    (
                        rate("ingest_api_writer_batch_entries_sum", "entries"),
                        rate("ingest_api_writer_batch_entries_count", "commits"),
                    ),
                ),
                Panel(
                    "Entries that wait",
                    "The queue before the writer. From half of its room on, batches are refused (admission: yellow).",
                    Unit.COUNT,
                    (Query("sum(ingest_api_writer_queue_entries)", "waiting"),),
                ),
                Panel(
                    "Entries refused, queue full",
                    "More than the queue holds came at once. Anything above zero means that clients were told 503.",
                    Unit.PER_SECOND,
                    (rate("ingest_api_writer_refused_total", "refused"),),
                ),
            ),
        ),
        Row(
            "Admission",
            (
                Panel(
                    "Step",
                    "0 green, 1 yellow (no batches), 2 orange (half of the writes), 3 red (no writes), 4 lost"
                    " (recover).",
                    Unit.PLAIN,
                    (Query("max(ingest_api_admission_state)", "step"),),
                    Look.NUMBER,
                ),
                Panel(
                    "Refused because the system is behind",
                    "By step. Refusals are answers 503 with Retry-After.",
                    Unit.REQUESTS_PER_SECOND,
                    (or_zero(rate("ingest_api_admission_refused_total", "{{state}}", by="state")),),
                ),
                Panel(
                    "Readings of the slot that failed",
                    "PostgreSQL did not say how far the slot is; the step stays as it was meanwhile.",
                    Unit.PER_SECOND,
                    (rate("ingest_api_admission_failed_samples_total", "failed"),),
                ),
                Panel(
                    "Commands at work and waiting",
                    "Participants, titles, receipts and logins take turns; many that wait mean a slow database.",
                    Unit.COUNT,
                    (
                        Query("sum(ingest_api_commands_served)", "at work"),
                        Query("sum(ingest_api_commands_waiting)", "waiting"),
                    ),
                ),
            ),
        ),
        Row(
            "Limits and security",
            (
                Panel(
                    "Refused by a rate limit",
                    "Answers 429 by quota. One user far above the others is a client gone wild.",
                    Unit.REQUESTS_PER_SECOND,
                    (or_zero(rate("ingest_api_rate_limited_total", "{{limit}}", by="limit")),),
                ),
                Panel(
                    "Limits are local",
                    "1 while Redis does not answer and each process limits on its own.",
                    Unit.YES_NO,
                    (Query("max(ingest_api_rate_limits_are_local)", "local"),),
                    Look.NUMBER,
                ),
                Panel(
                    "Entries of the audit log",
                    "Security events by what happened. Many login.failed of one address are somebody who guesses.",
                    Unit.PER_SECOND,
                    (or_zero(rate("ingest_api_audit_recorded_total", "{{action}}", by="action")),),
                ),
            ),
        ),
    ),
)
