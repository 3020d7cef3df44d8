"""The read side: live clients, what they are sent, and reads."""

from __future__ import annotations

from infra.grafana.model import Board, Panel, Query, Row, Unit, or_zero, quantiles, rate

DELIVERY = Board(
    "chat4all-delivery",
    "Chat4All: delivery",
    "Live clients over Server-Sent Events and WebSockets, history and inbox.",
    (
        Row(
            "Live clients",
            (
                Panel(
                    "Open streams",
                    "Clients that are connected. All gone at once: a restart, or what stands in front.",
                    Unit.COUNT,
                    (Query("sum(delivery_open_streams)", "open"),),
                ),
                Panel(
                    "Channels watched",
                    "What the processes are subscribed to in Redis for their clients.",
                    Unit.COUNT,
                    (Query("sum(delivery_watched_channels)", "watched"),),
                ),
                Panel(
                    "Streams that ended",
                    "By why. client_left is life; slow_client is somebody who does not read fast enough.",
                    Unit.PER_SECOND,
                    (or_zero(rate("delivery_streams_ended_total", "{{reason}}", by="reason")),),
                ),
            ),
        ),
        Row(
            "What they are told",
            (
                Panel(
                    "Frames in, events out",
                    "What came from Redis once, and what was handed to clients, once per client: fan-out is the ratio.",
                    Unit.PER_SECOND,
                    (
                        rate("delivery_live_frames_total", "from Redis"),
                        rate("delivery_stream_sent_total", "to clients"),
                    ),
                ),
                Panel(
                    "Read from tables or log",
                    "Events that clients had to catch up with because they did not come live: resumes, and Redis away.",
                    Unit.PER_SECOND,
                    (rate("delivery_stream_caught_up_events_total", "caught up"),),
                ),
                Panel(
                    "Gaps told",
                    "Times that continuity could not be proven and a client was told to refetch. Normally none.",
                    Unit.PER_SECOND,
                    (or_zero(rate("delivery_stream_gaps_total", "{{reason}}", by="reason")),),
                ),
            ),
        ),
        Row(
            "Reads",
            (
                Panel(
                    "Requests by route",
                    "Reads, and streams as they are opened.",
                    Unit.REQUESTS_PER_SECOND,
                    (rate("delivery_http_requests_total", "{{method}} {{route}}", by="method, route"),),
                ),
                Panel(
                    "Answer time",
                    "From the request's headers to its answer's start, all routes.",
                    Unit.SECONDS,
                    quantiles("delivery_http_request_seconds", 0.5, 0.95, 0.99),
                ),
                Panel(
                    "Who answered",
                    "Redis, or PostgreSQL in its place. Much of PostgreSQL: the tables were lost, or clients page"
                    " far back.",
                    Unit.PER_SECOND,
                    (rate("delivery_reads_total", "{{source}}", by="source"),),
                ),
                Panel(
                    "Trouble with Redis",
                    "Reads that Redis did not answer, and connections that the subscriber made anew.",
                    Unit.PER_SECOND,
                    (
                        rate("delivery_redis_failures_total", "failed reads"),
                        rate("delivery_subscriber_connections_total", "new connections"),
                    ),
                ),
            ),
        ),
    ),
)
