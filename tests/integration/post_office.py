"""The router and the channels app on PostgreSQL and Redis alone: what goes through Kafka is handed over by the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from schemas.ids import conversation_key
from schemas.topics import channel_topic
from stream_apps.base import is_passing
from stream_apps.channels.agents import Requests
from stream_apps.channels.challenges import Challenges
from stream_apps.channels.dispatcher import Dispatcher, Means, Patience
from stream_apps.channels.model import Adapter
from stream_apps.channels.outcomes import Outcomes
from stream_apps.channels.store import Store
from stream_apps.channels.webhook import WebhookAdapter
from stream_apps.log_reader import LogReader
from stream_apps.producer import Outgoing
from stream_apps.records import Record
from stream_apps.router.agents import Router
from stream_apps.telemetry import ChannelMetrics, RouterMetrics
from tests.chat_client import User
from tests.integration.desk import Desk
from tests.integration.servers import READER, Server, login
from tests.receivers import WebhookReceiver

CHANNELS_ROLE = "chat_channels"
LOOPBACK = (ip_network("127.0.0.0/8"),)
PARTITION = 3
PATIENT = Patience(0.3, 3600)


class HandedOver(NamedTuple):
    """A record without Kafka."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    partition: int = PARTITION
    offset: int = 0
    timestamp: int = 0


@dataclass
class Kept:
    """Keeps what is sent, and what is set aside."""

    records: list[Outgoing] = field(default_factory=list)
    dead: list[tuple[Record, str]] = field(default_factory=list)

    async def send(self, records: Sequence[Outgoing]) -> None:
        self.records += records

    def of(self, topic: str) -> list[Outgoing]:
        return [record for record in self.records if record.topic == topic]


@dataclass
class DeadLetters:
    kept: Kept

    async def send(self, record: Record, reason: str) -> None:
        self.kept.dead.append((record, reason))


@dataclass
class PostOffice:
    """One worker of each app. `errors` is what would have ended the process."""

    desk: Desk
    log: LogReader
    store: Store
    kept: Kept
    router: Router
    dispatchers: dict[str, Dispatcher]
    requests: dict[str, Requests]
    challenges: Challenges
    errors: list[Exception]

    async def records_of(self, conversation_id: str, *, after_seq: int = 0) -> list[HandedOver]:
        """The log's entries as Kafka would bring them."""
        key = conversation_key(conversation_id).encode()
        return [
            HandedOver(
                "conversation.events",
                key,
                entry.payload,
                [("id", entry.event_id.encode()), ("eventType", entry.event_type.encode()), ("seq", b"%d" % entry.seq)],
            )
            for entry in await self.log.read_entries(conversation_id, after_seq=after_seq, limit=10_000)
        ]

    async def carry(self, *conversation_ids: str, after_seq: int = 0) -> None:
        """Routes all that is in the conversations, and hands over what comes of it."""
        for conversation_id in conversation_ids:
            await self.router.route(await self.records_of(conversation_id, after_seq=after_seq))
        await self.hand_over()

    async def hand_over(self) -> None:
        """What the router sent goes to the channels app."""
        for channel, requests in self.requests.items():
            topic = channel_topic(channel).name
            sent = self.kept.of(topic)
            self.kept.records = [record for record in self.kept.records if record.topic != topic]
            if sent:
                await requests.take([HandedOver(*record) for record in sent])

    async def set_webhook(self, user: User, receiver: WebhookReceiver, path: str = "/hook") -> str:
        """Sets and verifies; the channel's id."""
        answer = await self.desk.ask(user, "PUT", "/v1/me/channels/webhook", {"url": receiver.url(path)})
        assert answer.status_code == 200, answer.text
        channel_id = await self.channel_id(user)
        self.challenges.send(channel_id)
        post = await receiver.wait_for(lambda post: post.path == path and post.document["type"] == "verification")
        code = {"code": post.document["data"]["code"]}
        verified = await self.desk.ask(user, "POST", "/v1/me/channels/webhook/verification", code)
        assert verified.status_code == 200, verified.text
        return channel_id

    async def channel_id(self, user: User) -> str:
        rows = await self.desk.rows("SELECT channel_id::text FROM channels WHERE user_id = %s", user.user_id)
        return str(rows[0][0])

    async def until_idle(self, *, within_seconds: float = 60) -> None:
        """Returns when nothing is left to deliver."""
        async with asyncio.timeout(within_seconds):
            while (await self.desk.rows("SELECT count(*) FROM channel_lines WHERE delivered_seq < last_seq"))[0][0]:
                assert self.errors == []
                await asyncio.sleep(0.05)


@asynccontextmanager
async def open_post_office(
    desk: Desk,
    redis_server: Server,
    *,
    adapters: dict[str, Adapter] | None = None,
    patience: Patience = PATIENT,
) -> AsyncIterator[PostOffice]:
    """The apps, running. Without Kafka."""
    registry = CollectorRegistry()
    metrics = ChannelMetrics(registry)
    used: dict[str, Adapter] = adapters or {
        "webhook": WebhookAdapter(allowed=LOOPBACK, allow_http=True, timeout_seconds=2)
    }
    kept = Kept()
    errors: list[Exception] = []
    arguments: dict[str, Any] = login(desk.server, CHANNELS_ROLE)
    store = Store(arguments)
    async with (
        LogReader(login(desk.server, READER)) as log,
        Redis(port=redis_server.port, password=redis_server.password) as redis,
    ):
        means = Means(store, Outcomes(kept, redis, metrics), metrics, is_passing, errors.append)
        dispatchers = {channel: Dispatcher(channel, adapter, means, patience) for channel, adapter in used.items()}
        challenges = Challenges(used, means, pauses_seconds=(0.1, 0.1))
        dead_letters = DeadLetters(kept)
        office = PostOffice(
            desk,
            log,
            store,
            kept,
            Router(log, kept, dead_letters, RouterMetrics(registry)),
            dispatchers,
            {channel: Requests(store, each, dead_letters, metrics) for channel, each in dispatchers.items()},
            challenges,
            errors,
        )
        await store.open()
        for dispatcher in dispatchers.values():
            await dispatcher.open()
            dispatcher.take_over([PARTITION])
        try:
            yield office
        finally:
            await challenges.close()
            for dispatcher in dispatchers.values():
                await dispatcher.close()
            await store.close()
        assert errors == []
