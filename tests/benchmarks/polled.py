"""Insert -> Kafka with a poller of the outbox, every 100 ms, against change data capture: the same rules, the same
database, the same consumer, in one run, in the order A B B A. While the poller works the connector is stopped, and the
other way round."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import psycopg
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from infra.local.postgres import DATABASE, OWNER
from infra.local.stack import Stack
from ingest_api.log_writer import APPEND, NewEntry, append_arguments
from schemas.ids import conversation_key
from schemas.outboxes import Outbox
from schemas.topics import CONVERSATION_EVENTS
from tests.benchmarks import change_data_capture, poller
from tests.benchmarks.change_data_capture import OUR_WAY, Way
from tests.conftest import ROOT

TOPIC = "benchmark.polled"
CONNECTOR = Outbox(0).connector
SECONDS_TO_CHANGE = 60


def polled_arguments(entry: NewEntry) -> tuple[str, ...]:
    """What the log takes, and the row that the poller will find."""
    row = entry.event_id, conversation_key(entry.conversation_id), "{" + entry.tail
    return (*append_arguments([entry]), *row)


POLLED_WAY = Way(
    TOPIC,
    f"WITH appended AS ({APPEND}) INSERT INTO {poller.TABLE} (id, key, payload)"  # noqa: S608 - no input
    " SELECT %s, %s, %s FROM appended WHERE outcome = 'appended'",
    polled_arguments,
)


async def compare(stack: Stack, *, rate: float, seconds: float) -> dict[str, Any]:
    """Percentiles of both, each measured twice, and how many times as long the poller takes."""
    results: dict[str, list[dict[str, float]]] = {"ours": [], "poller": []}
    async with prepared(stack):
        for name in ("ours", "poller", "poller", "ours"):
            if name == "ours":
                await _measure(results[name], stack, OUR_WAY, rate, seconds)
            else:
                async with polling(stack):
                    await _measure(results[name], stack, POLLED_WAY, rate, seconds)
    ratios = {
        f"{percentile}_ratio": round(
            sum(run[percentile] for run in results["poller"]) / sum(run[percentile] for run in results["ours"]), 1
        )
        for percentile in ("p50", "p99")
    }
    return {"rate_per_second": rate, "poll_milliseconds": round(1000 * poller.POLL_SECONDS), **results, **ratios}


async def _measure(runs: list[dict[str, float]], stack: Stack, way: Way, rate: float, seconds: float) -> None:
    await change_data_capture.measure(stack, rate=rate, seconds=min(3, seconds), way=way)
    runs.append(await change_data_capture.measure(stack, rate=rate, seconds=seconds, way=way))


@asynccontextmanager
async def prepared(stack: Stack) -> AsyncIterator[None]:
    """The poller's table and topic exist meanwhile. No program of the system knows of them."""
    login: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": stack.ports.postgres,
        "dbname": DATABASE,
        "user": OWNER,
        "password": stack.secrets.database_owner,
    }
    kafka = AIOKafkaAdminClient(bootstrap_servers=f"127.0.0.1:{stack.ports.kafka}")
    await kafka.start()
    try:
        async with await psycopg.AsyncConnection.connect(**login, autocommit=True) as database:
            await database.execute(poller.CREATE)
            await database.execute(f"GRANT INSERT ON {poller.TABLE} TO chat_api")
            await kafka.create_topics([NewTopic(TOPIC, CONVERSATION_EVENTS.partitions, 1)])
            try:
                yield
            finally:
                await kafka.delete_topics([TOPIC])
                await database.execute(f"DROP TABLE {poller.TABLE}")
    finally:
        await kafka.close()


@asynccontextmanager
async def polling(stack: Stack) -> AsyncIterator[None]:
    """The poller runs and the connector does not."""
    await change_connector(stack, "stop", has_task=False)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.benchmarks.poller", TOPIC),
        cwd=ROOT,
        env={"PATH": os.defpath, **stack.environment_of("outboxes")},
    )
    try:
        yield
        assert process.returncode is None, "the poller ended"
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await change_connector(stack, "resume", has_task=True)


async def change_connector(stack: Stack, verb: str, *, has_task: bool) -> None:
    """`stop` or `resume`, and waits until it is so."""
    url = f"http://127.0.0.1:{stack.ports.connect}/connectors/{CONNECTOR}"
    async with httpx.AsyncClient(timeout=30, trust_env=False) as http, asyncio.timeout(SECONDS_TO_CHANGE):
        (await http.put(f"{url}/{verb}")).raise_for_status()
        while True:
            tasks = (await http.get(f"{url}/status")).json()["tasks"]
            if [task["state"] for task in tasks] == (["RUNNING"] if has_task else []):
                return
            await asyncio.sleep(0.1)
