"""`python -m tests.benchmarks.poller TOPIC`: the transactional outbox as it is usually read, to measure ours against.

Every 100 ms it takes what is in the table, oldest first, sends it to Kafka, and deletes it when Kafka has it. It is as
good as such a loop gets: one connection, one round trip for a thousand rows, no pause while there is more.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import Any

import psycopg
import uvloop
from aiokafka import AIOKafkaProducer

from schemas.envelope import HEADER_EVENT_ID

POLL_SECONDS = 0.1
ROWS = 1000
TABLE = "benchmark_outbox"
CREATE = f"""CREATE TABLE IF NOT EXISTS {TABLE} (
    position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id uuid NOT NULL, key text NOT NULL, payload text NOT NULL)"""
TAKE = f"SELECT position, id, key, payload FROM {TABLE} ORDER BY position LIMIT {ROWS}"  # noqa: S608 - no input
FORGET = f"DELETE FROM {TABLE} WHERE position = ANY(%s)"  # noqa: S608


async def poll(topic: str) -> None:
    """Polls until it is ended. The database and Kafka are those that CHAT4ALL_DATABASE_… and _KAFKA_BOOTSTRAP name."""
    producer = AIOKafkaProducer(bootstrap_servers=os.environ["CHAT4ALL_KAFKA_BOOTSTRAP"], acks="all", linger_ms=0)
    await producer.start()
    try:
        async with await psycopg.AsyncConnection.connect(autocommit=True, **login_of_environment()) as database:
            next_look = time.perf_counter()
            while True:
                while await _pass_on(database, producer, topic) == ROWS:
                    pass
                next_look = max(next_look + POLL_SECONDS, time.perf_counter())
                await asyncio.sleep(next_look - time.perf_counter())
    finally:
        await producer.stop()


async def _pass_on(database: psycopg.AsyncConnection, producer: AIOKafkaProducer, topic: str) -> int:
    """How many rows there were."""
    async with database.transaction():
        rows = await (await database.execute(TAKE, prepare=True)).fetchall()
        if rows:
            sent = [
                await producer.send(
                    topic, payload.encode(), key.encode(), headers=[(HEADER_EVENT_ID, str(event_id).encode())]
                )
                for _, event_id, key, payload in rows
            ]
            await asyncio.gather(*sent)
            await database.execute(FORGET, ([row[0] for row in rows],), prepare=True)
    return len(rows)


def login_of_environment() -> dict[str, Any]:
    """For psycopg, from the variables that the stack gives its programs."""
    names = {"host": "HOST", "port": "PORT", "dbname": "NAME", "user": "USER", "password": "PASSWORD"}
    return {key: os.environ[f"CHAT4ALL_DATABASE_{name}"] for key, name in names.items()}


if __name__ == "__main__":
    uvloop.run(poll(sys.argv[1]))
