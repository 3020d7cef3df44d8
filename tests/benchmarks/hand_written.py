"""`python -m tests.benchmarks.hand_written FIRST_OFFSETS RECORDS`: what the timeline worker is measured against.

A loop over aiokafka's getmany that reads each record's key and headers and makes the same one call of the same Lua
script per batch; nothing else. It prints how many records it applied per second, as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import uvloop
from aiokafka import AIOKafkaConsumer, TopicPartition
from redis.asyncio import ConnectionPool, Redis

from schemas.topics import CONVERSATION_EVENTS
from stream_apps.base import BATCH_RECORDS, CHUNK_BYTES
from stream_apps.chunk_transport import FETCH_MAX_BYTES
from stream_apps.redis_tables.connection import PackingConnection
from stream_apps.redis_tables.tables import RedisTables, TimelineEvent
from stream_apps.settings import StreamSettings

KEY_PREFIX_LENGTH = len("conversation:")


async def run(settings: StreamSettings, first_offsets: dict[str, int], records: int) -> dict[str, Any]:
    """Applies so many records from these offsets on."""
    pool: ConnectionPool = ConnectionPool(
        PackingConnection,
        host=settings.redis_host,
        port=settings.redis_port,
        password=settings.redis_password.get_secret_value() or None,
    )
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap,
        enable_auto_commit=False,
        max_partition_fetch_bytes=CHUNK_BYTES,
        fetch_max_bytes=FETCH_MAX_BYTES,
    )
    await consumer.start()
    redis = Redis.from_pool(pool)
    tables = RedisTables(redis)
    try:
        partitions = [TopicPartition(CONVERSATION_EVENTS.name, int(number)) for number in first_offsets]
        consumer.assign(partitions)
        for partition in partitions:
            consumer.seek(partition, first_offsets[str(partition.partition)])
        applied, started = 0, 0.0
        while applied < records:
            fetched = await consumer.getmany(timeout_ms=1000, max_records=BATCH_RECORDS)
            started = started or time.perf_counter()
            changes: dict[str, list[TimelineEvent]] = {}
            for partition_records in fetched.values():
                applied += len(partition_records)
                for record in partition_records:
                    headers = dict(record.headers)
                    event = TimelineEvent(
                        int(headers["seq"]), headers["eventType"].decode(), headers["id"].decode(), record.value
                    )
                    changes.setdefault(record.key[KEY_PREFIX_LENGTH:].decode(), []).append(event)
            if changes:
                await tables.apply(changes)
        return {"records_per_second": round(applied / (time.perf_counter() - started))}
    finally:
        await consumer.stop()
        await redis.aclose()


if __name__ == "__main__":
    result = uvloop.run(run(StreamSettings(), json.loads(sys.argv[1]), int(sys.argv[2])))
    sys.stdout.write(json.dumps(result) + "\n")
