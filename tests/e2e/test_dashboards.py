"""Every query of every dashboard, asked of the system's own Prometheus while the system is used: each has an answer."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from infra.grafana.boards import BOARDS
from infra.grafana.model import RATE, Query
from infra.local.stack import Stack
from tests.chat_client import ChatClient

INTERVAL = "30s"
"""What Grafana would choose for a scrape every 5 s, and a bit."""
SECONDS_TO_ANSWER = 90
QUERIES = [
    (f"{board.uid}: {panel.title}: {query.legend}", query)
    for board in BOARDS
    for panel in board.panels()
    for query in panel.queries
]


def expression_of(query: Query) -> str:
    return query.expression.replace(RATE, INTERVAL)


@asynccontextmanager
async def used(client: ChatClient) -> AsyncIterator[None]:
    """Somebody writes and reads meanwhile, and somebody listens."""
    alice = await client.register("alice")
    conversation_id = await client.create_conversation(alice)

    async def write_and_read() -> None:
        while True:
            await client.send(alice, conversation_id, "hello")
            for path in ("/v1/conversations", f"/v1/conversations/{conversation_id}/messages"):
                (await client.get(alice, path)).raise_for_status()
            await asyncio.sleep(0.1)

    async with client.stream(alice) as events:

        async def listen() -> None:
            async for _ in events:
                pass

        tasks = [asyncio.create_task(write_and_read()), asyncio.create_task(listen())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def ask(http: httpx.AsyncClient, query: Query) -> list[float]:
    """The numbers that Prometheus answers with now."""
    answer = await http.get("/api/v1/query", params={"query": expression_of(query)})
    document = answer.json()
    assert document["status"] == "success", document
    return [float(series["value"][1]) for series in document["data"]["result"]]


async def test_every_query_of_every_dashboard_has_an_answer(stack: Stack, client: ChatClient) -> None:
    waiting = dict(QUERIES)
    async with (
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{stack.ports.prometheus}", trust_env=False) as http,
        used(client),
    ):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SECONDS_TO_ANSWER):
                while waiting:
                    for name, query in list(waiting.items()):
                        numbers = await ask(http, query)
                        if not all(map(math.isnan, numbers)):  # what nobody used for a while has no quantile
                            del waiting[name]
                    await asyncio.sleep(2)
    assert sorted(waiting) == [], "these have no answer"
