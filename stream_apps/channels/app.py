"""Wires the channels app. A new kind of channel is an adapter here, and its name in schemas/channels.py."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from infra.telemetry.instruments import make_registry
from infra.telemetry.spans import open_recorder
from schemas.channels import EMAIL, WEBHOOK
from schemas.topics import USER_EVENTS, channel_topic
from stream_apps.base import StreamApp, Watchdog, add_agent, end_because_of, is_passing
from stream_apps.channels.agents import Requests, UserEvents
from stream_apps.channels.challenges import Challenges
from stream_apps.channels.dispatcher import Dispatcher, Means, Patience
from stream_apps.channels.email import EmailAdapter, MailServer
from stream_apps.channels.model import Adapter
from stream_apps.channels.outcomes import Outcomes
from stream_apps.channels.settings import ChannelSettings
from stream_apps.channels.store import Store
from stream_apps.channels.webhook import WebhookAdapter
from stream_apps.clients import RedisPart, make_redis
from stream_apps.dead_letters import DeadLetters
from stream_apps.health_server import HealthServer
from stream_apps.producer import Producer
from stream_apps.telemetry import ChannelMetrics, SpanMetrics
from stream_apps.tracing import RecordSpans
from stream_apps.worker_health import WorkerHealth

REDIS_TIMEOUT_SECONDS = 0.5


def make_adapters(settings: ChannelSettings) -> dict[str, Adapter]:
    """Channel name -> what sends over it."""
    mail_server = MailServer(
        host=settings.smtp_host,
        port=settings.smtp_port,
        security=settings.smtp_security,
        username=settings.smtp_username,
        password=settings.smtp_password.get_secret_value(),
        sender=settings.email_from,
    )
    return {
        WEBHOOK: WebhookAdapter(
            allowed=settings.webhook_allowed_networks,
            allow_http=settings.webhook_allow_http,
            timeout_seconds=settings.delivery_timeout_seconds,
        ),
        EMAIL: EmailAdapter(mail_server),
    }


def create_app(settings: ChannelSettings) -> StreamApp:
    """The Faust app. Nothing is connected before a worker runs it."""
    registry = make_registry()
    metrics = ChannelMetrics(registry)
    recorder = open_recorder(settings.otlp_endpoint, "chat4all-channels", SpanMetrics("channels", registry))
    redis = make_redis(settings, timeout_seconds=REDIS_TIMEOUT_SECONDS)
    store = Store(settings.database_arguments() | {"application_name": "chat4all channels"})
    producer = Producer(settings.kafka_bootstrap)
    dead_letters = DeadLetters(settings.kafka_bootstrap, limit=settings.dead_letter_limit)
    means = Means(store, Outcomes(producer, redis, metrics), metrics, is_passing, end_because_of, recorder)
    watchdog = Watchdog(settings.watchdog_seconds)
    adapters = make_adapters(settings)
    patience = Patience(settings.longest_pause_seconds, settings.give_up_seconds)
    dispatchers = {channel: Dispatcher(channel, adapter, means, patience) for channel, adapter in adapters.items()}
    challenges = Challenges(adapters, means)
    health = WorkerHealth(registry, watchdog)
    app = StreamApp(
        "channels",
        settings,
        parts=[
            HealthServer(settings.metrics_port, registry, health.ask, host=settings.metrics_host),
            RedisPart(redis),
            store,
            producer,
            dead_letters,
            *dispatchers.values(),
            challenges,
        ],
        metrics=metrics,
        watchdog=watchdog,
    )
    health.watch(app)
    app.tell(RecordSpans("channels", recorder))
    _follow_assignment(app, dispatchers, challenges)
    for channel, dispatcher in dispatchers.items():
        requests = Requests(store, dispatcher, dead_letters, metrics)
        add_agent(app, channel_topic(channel), requests.take, metrics, watchdog)
    add_agent(app, USER_EVENTS, UserEvents(challenges, dead_letters, metrics).take, metrics, watchdog)
    return app


def _follow_assignment(app: StreamApp, dispatchers: dict[str, Dispatcher], challenges: Challenges) -> None:
    """Whoever has a partition of a channel's topic delivers the lines that were noted from it."""

    async def hand_over(_app: Any, _revoked: Collection[Any], **_: Any) -> None:
        for dispatcher in dispatchers.values():
            dispatcher.take_over([])

    async def take_over(_app: Any, assigned: Collection[Any], **_: Any) -> None:
        for channel, dispatcher in dispatchers.items():
            topic = channel_topic(channel).name
            dispatcher.take_over([each.partition for each in assigned if each.topic == topic])
        challenges.resume()

    app.on_partitions_revoked.connect(hand_over)
    app.on_partitions_assigned.connect(take_over)
