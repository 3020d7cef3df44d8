"""`python -m stream_apps.topics`: creates the topics of schemas/topics.py that are missing."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from schemas.topics import TOPICS, Topic


class TopicSettings(BaseSettings):
    """Where Kafka is, and how many copies of a topic it keeps."""

    model_config = SettingsConfigDict(env_prefix="CHAT4ALL_", extra="ignore")

    kafka_bootstrap: str = Field(default="127.0.0.1:9092", description="Kafka's bootstrap servers, comma-separated.")
    kafka_replication_factor: int = Field(default=1, ge=1, description="Copies of each topic.")
    kafka_wait_seconds: float = Field(default=60.0, ge=0, description="How long to wait for Kafka.")


async def create_missing(settings: TopicSettings) -> dict[str, bool]:
    """Topic -> whether it was created now. Raises KafkaError when Kafka does not answer in time or refuses."""
    client = await _connect(settings)
    try:
        existing = set(await client.list_topics())
        missing = [topic for topic in TOPICS if topic.name not in existing]
        for topic in missing:
            await _create(client, topic, settings.kafka_replication_factor)
        return {topic.name: topic in missing for topic in TOPICS}
    finally:
        await client.close()


async def _connect(settings: TopicSettings) -> AIOKafkaAdminClient:
    deadline = time.monotonic() + settings.kafka_wait_seconds
    while True:
        client = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
        try:
            await client.start()
        except KafkaError:
            await client.close()
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.25)
        else:
            return client


async def _create(client: AIOKafkaAdminClient, topic: Topic, replication_factor: int) -> None:
    answer = await client.create_topics(
        [NewTopic(topic.name, topic.partitions, replication_factor, topic_configs=topic.full_config())]
    )
    for error in answer.topic_errors:
        kind = for_code(error[1])
        if error[1] and kind is not TopicAlreadyExistsError:
            raise kind(f"{topic.name}: {error[2]}")


def main() -> int:
    """The command. Exit status 0, or 1 with one sentence on standard error."""
    argparse.ArgumentParser(prog="python -m stream_apps.topics", description=__doc__).parse_args()
    try:
        created = asyncio.run(create_missing(TopicSettings()))
    except KafkaError as error:
        print(f"The topics could not be created: {error}", file=sys.stderr)
        return 1
    for name, is_new in created.items():
        print(f"{name}: {'created' if is_new else 'was there'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
