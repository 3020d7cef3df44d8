"""The ways out: webhooks and e-mail."""

from __future__ import annotations

from infra.grafana.model import Board, Panel, Query, Row, Unit, or_zero, rate

CHANNELS = Board(
    "chat4all-channels",
    "Chat4All: channels",
    "Webhooks and e-mail: what is delivered, what fails, whose targets are only probed.",
    (
        Row(
            "Deliveries",
            (
                Panel(
                    "Tries by outcome",
                    "delivered is good; trylater is the target's fault; unavailable is ours: look at the mail server.",
                    Unit.PER_SECOND,
                    (or_zero(rate("channels_deliveries_total", "{{channel}} {{outcome}}", by="channel, outcome")),),
                ),
                Panel(
                    "Messages delivered",
                    "Several may go in one letter.",
                    Unit.PER_SECOND,
                    (or_zero(rate("channels_messages_total", "{{channel}}", by="channel")),),
                ),
                Panel(
                    "How long targets take, mean",
                    "Targets that take long hold up themselves alone.",
                    Unit.SECONDS,
                    (
                        or_zero(
                            Query(
                                "sum by (channel) (rate(channels_delivery_seconds_sum[$__rate_interval]))"
                                " / sum by (channel) (rate(channels_delivery_seconds_count[$__rate_interval]) > 0)",
                                "{{channel}}",
                            )
                        ),
                    ),
                ),
            ),
        ),
        Row(
            "Targets",
            (
                Panel(
                    "Targets with something to deliver",
                    "By channel. Rising for long: targets do not answer, or the app cannot keep up.",
                    Unit.COUNT,
                    (or_zero(Query("sum by (channel) (channels_targets)", "{{channel}}")),),
                ),
                Panel(
                    "Targets that are only probed",
                    "They failed, and are tried with growing pauses.",
                    Unit.COUNT,
                    (or_zero(Query("sum by (channel) (channels_open_circuits)", "{{channel}}")),),
                ),
                Panel(
                    "Channels disabled in a day",
                    "They failed for days; their users are told.",
                    Unit.COUNT,
                    (or_zero(Query("sum by (channel) (increase(channels_disabled_total[1d]))", "{{channel}}")),),
                ),
            ),
        ),
        Row(
            "The router",
            (
                Panel(
                    "Records read and requests made",
                    "Each message is read; a request is made for those whose recipients have a channel.",
                    Unit.PER_SECOND,
                    (rate("router_records_total", "read"), rate("router_requests_total", "requests")),
                ),
                Panel(
                    "Verification codes",
                    "Codes sent to prove that a user receives what is sent over a channel.",
                    Unit.PER_SECOND,
                    (or_zero(rate("channels_challenges_total", "{{channel}} {{outcome}}", by="channel, outcome")),),
                ),
            ),
        ),
    ),
)
