"""Traces, end to end: each sampled message has one connected trace with every hop, whether or not the collector was
away before; the others have none. (The stack exports to where a collector listens only here; it samples nothing by
itself, and follows who brings a sampled traceparent.)"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from contextlib import AsyncExitStack
from urllib.parse import urlsplit

import httpx
import pytest

from chat4all_client import Chat
from infra.local.stack import Stack
from tests.api_process import api_process
from tests.chat_client import PASSWORD, ChatClient, User
from tests.collector import Collector, collector_at
from tests.conftest import COLLECTOR_VARIABLE
from tests.e2e.test_channels import set_webhook
from tests.receivers import receive_webhooks

ACCEPT = "POST /v1/conversations/{conversation_id}/messages"
HOPS = {ACCEPT, "commit", "append conversation.events", "timeline conversation.events", "fan out", "send"}
CHANNEL_HOPS = {"router conversation.events", "channels channel.webhook", "deliver webhook"}


def collector_port(stack: Stack) -> int:
    return urlsplit(stack.config.environ[COLLECTOR_VARIABLE]).port or 0


async def post(
    client: ChatClient, user: User, conversation_id: str, text: str, *, traceparent: str | None = None, url: str = ""
) -> None:
    answer = await client.http.post(
        f"{url or client.ingest_url}/v1/conversations/{conversation_id}/messages",
        json={"body": {"type": "text", "text": text}},
        headers={**user.headers, **({"traceparent": traceparent} if traceparent else {})},
    )
    assert answer.status_code == 201, answer.text


async def post_traced(
    client: ChatClient, user: User, conversation_ids: list[str], count: int, *, at_once: int = 10
) -> dict[str, str]:
    """Sends messages, each in a trace of its own: trace id -> the sender's span id."""
    traces = {secrets.token_hex(16): secrets.token_hex(8) for _ in range(count)}
    work = list(enumerate(traces.items()))

    async def send_some() -> None:
        while work:
            number, (trace_id, span_id) = work.pop()
            conversation_id = conversation_ids[number % len(conversation_ids)]
            await post(client, user, conversation_id, str(number), traceparent=f"00-{trace_id}-{span_id}-01")

    await asyncio.gather(*(send_some() for _ in range(at_once)))
    return traces


async def whole(collector: Collector, trace_ids: set[str], hops: set[str], *, within_seconds: float = 60) -> None:
    """Returns when each of the traces has every hop; else says what the incomplete ones lack."""
    try:
        await collector.wait_until(
            lambda: all(hops <= collector.names(trace_id) for trace_id in trace_ids), within_seconds=within_seconds
        )
    except TimeoutError:
        lacking = Counter(name for trace_id in trace_ids for name in hops - collector.names(trace_id))
        pytest.fail(f"of {len(trace_ids)} traces, hops are missing in: {lacking}")


def is_connected(collector: Collector, trace_id: str, begin: str) -> bool:
    """Whether every span hangs on another one of the trace, and the first one where the trace began."""
    spans = collector.traces[trace_id]
    ids = {span.span_id for span in spans}
    assert len(ids) == len(spans), "no id twice"
    roots = [span for span in spans if span.parent_id not in ids]
    return [(root.name, root.parent_id) for root in roots] == [(ACCEPT, begin)]


async def dropped(stack: Stack) -> float:
    """How many spans of the timeline app were lost."""
    async with httpx.AsyncClient(trust_env=False) as http:
        text = (await http.get(f"http://127.0.0.1:{stack.ports.timeline_metrics}/metrics")).text
    return sum(
        float(line.split()[-1]) for line in text.splitlines() if line.startswith("timeline_spans_dropped_total{")
    )


async def test_of_a_thousand_messages_each_has_one_connected_trace_with_every_hop(
    stack: Stack, client: ChatClient
) -> None:
    alice, bob, carol = [await client.register(name) for name in ("alice", "bob", "carol")]
    conversation_ids = [await client.create_conversation(alice, bob, carol) for _ in range(5)]
    async with AsyncExitStack() as things:
        receiver = await things.enter_async_context(receive_webhooks())
        await set_webhook(client, bob, receiver)
        collector = await things.enter_async_context(collector_at(collector_port(stack)))
        await things.enter_async_context(client.stream(bob))
        chat = await things.enter_async_context(Chat(client.ingest_url, client.delivery_url))
        await chat.login(carol.username, PASSWORD)
        await things.enter_async_context(chat.live())
        traces = await post_traced(client, alice, conversation_ids, 1000)
        await whole(collector, set(traces), HOPS | CHANNEL_HOPS)

    assert all(is_connected(collector, trace_id, begin) for trace_id, begin in traces.items())
    batches = {
        span.span_id: span for spans in collector.traces.values() for span in spans if "batch.size" in span.attributes
    }
    for trace_id in traces:
        spans = collector.traces[trace_id]
        transports = {span.attributes["chat4all.transport"] for span in spans if span.name == "send"}
        assert transports == {"sse", "websocket"}
        for span in spans:
            assert span.start_ns <= span.end_ns
            if span.name in {"commit", "timeline conversation.events", "deliver webhook"}:
                assert all(batches[link].trace_id not in traces for link in span.links), "linked to its batch"
                assert len(span.links) == 1
    services = {span.service for trace_id in traces for span in collector.traces[trace_id]}
    assert services == {f"chat4all-{name}" for name in ("ingest-api", "timeline", "router", "channels", "delivery")}


async def test_while_the_collector_is_away_nothing_waits_for_it(stack: Stack, client: ChatClient) -> None:
    alice, bob = await client.register("alice"), await client.register("bob")
    conversation_id = await client.create_conversation(alice, bob)
    async with client.stream(bob, conversation_id=conversation_id) as events:
        async with collector_at(collector_port(stack)) as collector:
            before = await post_traced(client, alice, [conversation_id], 20)
            await whole(collector, set(before), HOPS)
        lost_before = await dropped(stack)
        began = time.monotonic()
        await post_traced(client, alice, [conversation_id], 200)
        received = 0
        async with asyncio.timeout(30):
            async for event in events:
                received += event.event == "MessageSent"
                if received == 220:
                    break
        assert time.monotonic() - began < 30
        async with asyncio.timeout(30):
            while await dropped(stack) < lost_before + 200:
                await asyncio.sleep(0.2)
        async with collector_at(collector_port(stack)) as collector:
            after = await post_traced(client, alice, [conversation_id], 20)
            await whole(collector, set(after), HOPS)
    complaints = [line for line in stack.log_tail("timeline", 2000) if "does not take spans" in line]
    assert 1 <= len(complaints) <= 20, "it is told when the collector goes, not at each try"


async def test_about_a_tenth_is_sampled_and_each_of_that_whole(stack: Stack, client: ChatClient) -> None:
    alice, bob = await client.register("alice"), await client.register("bob")
    conversation_id = await client.create_conversation(alice, bob)
    async with (
        api_process(stack, CHAT4ALL_TRACE_RATIO="0.1") as api,
        collector_at(collector_port(stack)) as collector,
        client.stream(bob, conversation_id=conversation_id),
    ):
        for number in range(40):
            await asyncio.gather(*(post(client, alice, conversation_id, f"{number}", url=api.url) for _ in range(10)))
        unsampled = f"00-{'ab' * 16}-{'cd' * 8}-00"
        await post(client, alice, conversation_id, "not to be traced", traceparent=unsampled, url=api.url)
        await api.end()
        begun = {trace_id for trace_id in collector.traces if ACCEPT in collector.names(trace_id)}
        await whole(collector, begun, HOPS)
    assert 15 <= len(begun) <= 75, "400 messages at 0.1: 40, give or take six"
    assert "ab" * 16 not in collector.traces
    assert all(is_connected(collector, trace_id, "") for trace_id in begun)
