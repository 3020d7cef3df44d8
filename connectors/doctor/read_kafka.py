"""Reads Kafka's facts: what topics and brokers there are, and their settings. Asks, and changes nothing."""

from __future__ import annotations

from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from connectors.doctor.facts import KafkaFacts, TopicState

REQUEST_MS = 10_000


async def read_kafka(bootstrap: str) -> KafkaFacts:
    """Kafka's facts now. aiokafka's errors are the caller's."""
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=REQUEST_MS)
    try:
        await client.start()
        brokers = (await client.describe_cluster())["brokers"]
        described = await client.describe_topics()
        names = [topic["topic"] for topic in described]
        settings = await _settings(client, ConfigResourceType.TOPIC, names)
        broker_id = str(brokers[0]["node_id"])
        broker = await _settings(client, ConfigResourceType.BROKER, [broker_id])
        return KafkaFacts(
            brokers=len(brokers),
            broker_settings=broker.get(broker_id, {}),
            topics={topic["topic"]: _state(topic, settings.get(topic["topic"], {})) for topic in described},
        )
    finally:
        await client.close()


async def _settings(
    client: AIOKafkaAdminClient, kind: ConfigResourceType, names: list[str]
) -> dict[str, dict[str, str]]:
    answers = await client.describe_configs([ConfigResource(kind, name) for name in names])
    return {
        name: {entry[0]: entry[1] or "" for entry in entries}
        for answer in answers
        for _, _, _, name, entries in answer.resources
    }


def _state(topic: dict[str, Any], settings: dict[str, str]) -> TopicState:
    partitions = topic["partitions"]
    return TopicState(
        partitions=len(partitions),
        copies=min((len(each["replicas"]) for each in partitions), default=0),
        out_of_sync=sum(len(each["isr"]) < len(each["replicas"]) for each in partitions),
        settings=settings,
    )
