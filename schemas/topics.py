"""The topics: declared here, created from here (`python -m stream_apps.topics`), never by a producer's first write."""

from __future__ import annotations

from dataclasses import dataclass, field

from schemas.channels import EMAIL, WEBHOOK

PARTITIONS = 12
DAY_MS = 24 * 60 * 60 * 1000

CONNECTOR_TOPIC_PREFIX = "chat4all"
"""Debezium's `topic.prefix`: names the topics that carry a table's changes unrouted, and the heartbeat topic."""


@dataclass(frozen=True, slots=True)
class Topic:
    """One Kafka topic. `retention_ms` of -1 keeps everything. `purpose` is a sentence for operators."""

    name: str
    key: str
    partitions: int
    retention_ms: int
    purpose: str
    config: dict[str, str] = field(default_factory=dict)

    def full_config(self) -> dict[str, str]:
        """The topic's settings as Kafka names them."""
        return {"retention.ms": str(self.retention_ms), **self.config}


def dead_letter_topic(topic: Topic) -> Topic:
    """Where records of a topic go that can never be applied."""
    return Topic(
        name=f"{topic.name}.dead-letter",
        key=topic.key,
        partitions=1,
        retention_ms=30 * DAY_MS,
        purpose=f"Records of {topic.name} that could never be applied, with the reason in their headers.",
    )


CONVERSATION_EVENTS = Topic(
    name="conversation.events",
    key="conversation:{conversation_id}",
    partitions=PARTITIONS,
    retention_ms=7 * DAY_MS,
    purpose="Every log entry of every conversation, in seq order within its key.",
    config={"message.timestamp.type": "LogAppendTime"},
)

CONVERSATION_EVENTS_DEAD_LETTER = dead_letter_topic(CONVERSATION_EVENTS)

RECEIPT_EVENTS = Topic(
    name="receipt.events",
    key="conversation:{conversation_id}",
    partitions=PARTITIONS,
    retention_ms=7 * DAY_MS,
    purpose="How far each participant has received and read; only ever growing maxima.",
    config={"message.timestamp.type": "LogAppendTime"},
)

RECEIPT_EVENTS_DEAD_LETTER = dead_letter_topic(RECEIPT_EVENTS)

DEAD_LETTERS_SETTLED = Topic(
    name="dead-letters.settled",
    key="{topic}:{partition}:{offset} of a dead letter",
    partitions=1,
    retention_ms=90 * DAY_MS,
    purpose="What operators have done about dead letters: redriven or dropped.",
)

USER_EVENTS = Topic(
    name="user.events",
    key="user:{user_id}",
    partitions=PARTITIONS,
    retention_ms=7 * DAY_MS,
    purpose="What became of users' channels: set, verified, removed, disabled.",
    config={"message.timestamp.type": "LogAppendTime"},
)


def channel_topic(channel: str) -> Topic:
    """The topic of what is to be delivered over a channel."""
    return Topic(
        name=f"channel.{channel}",
        key="conversation:{conversation_id}",
        partitions=PARTITIONS,
        retention_ms=7 * DAY_MS,
        purpose=f"Which messages are to be delivered over the channel {channel}, and to whom.",
    )


CHANNEL_WEBHOOK = channel_topic(WEBHOOK)
CHANNEL_EMAIL = channel_topic(EMAIL)

DELIVERY_EVENTS = Topic(
    name="delivery.events",
    key="conversation:{conversation_id}",
    partitions=PARTITIONS,
    retention_ms=7 * DAY_MS,
    purpose="What became of every try to deliver messages over a channel.",
)


HEARTBEAT_TABLE = Topic(
    name=f"{CONNECTOR_TOPIC_PREFIX}.public.cdc_heartbeat",
    key="the row's primary key",
    partitions=1,
    retention_ms=60 * 60 * 1000,
    purpose="Changes of cdc_heartbeat: they let the replication slot advance while the outbox is quiet.",
)

CONNECTOR_HEARTBEAT = Topic(
    name=f"__debezium-heartbeat.{CONNECTOR_TOPIC_PREFIX}",
    key="the connector's server name",
    partitions=1,
    retention_ms=60 * 60 * 1000,
    purpose="Debezium's own heartbeat records.",
)

TOPICS = (
    CONVERSATION_EVENTS,
    CONVERSATION_EVENTS_DEAD_LETTER,
    RECEIPT_EVENTS,
    RECEIPT_EVENTS_DEAD_LETTER,
    DEAD_LETTERS_SETTLED,
    USER_EVENTS,
    dead_letter_topic(USER_EVENTS),
    CHANNEL_WEBHOOK,
    dead_letter_topic(CHANNEL_WEBHOOK),
    CHANNEL_EMAIL,
    dead_letter_topic(CHANNEL_EMAIL),
    DELIVERY_EVENTS,
    HEARTBEAT_TABLE,
    CONNECTOR_HEARTBEAT,
)
