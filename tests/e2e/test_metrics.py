"""What the running programs tell, against what their catalogues declare."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Mapping
from dataclasses import fields

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError

from infra.local.programs import PROGRAMS
from infra.local.stack import Stack
from infra.metrics_page import CATALOGUES
from schemas.metrics import Kind, Metric
from tests.chat_client import ChatClient
from tests.promtool import find_promtool

PORTS = {program.name: program.port for program in PROGRAMS}


async def scrape(stack: Stack, program: str) -> str:
    """The text that Prometheus would be told."""
    return await scrape_port(getattr(stack.ports, PORTS[program]))


async def scrape_port(port: int) -> str:
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.get(f"http://127.0.0.1:{port}/metrics", timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.text


def samples(text: str) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Sample name -> labels -> value."""
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def told(text: str) -> dict[str, tuple[str, str]]:
    """Metric name -> type and sentence, as the text has them."""
    kinds, sentences = {}, {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ", 3)
            kinds[name] = kind
        elif line.startswith("# HELP "):
            _, _, name, sentence = line.split(" ", 3)
            sentences[name] = sentence
    return {name: (kind, sentences[name]) for name, kind in kinds.items()}


@pytest.mark.parametrize("program", CATALOGUES)
async def test_a_program_tells_what_its_catalogue_declares_and_nothing_else(stack: Stack, program: str) -> None:
    text = await scrape(stack, program)
    declared = CATALOGUES[program]
    own = {name: (kind, sentence) for name, (kind, sentence) in told(text).items() if not is_of_process(name)}
    assert own == {
        metric.name: (metric.kind.value, metric.sentence)
        for metric in declared.values()
        if not is_of_process(metric.name)
    }
    of_process = {name for name in told(text) if is_of_process(name)}
    assert of_process == {name for name in declared if is_of_process(name)}
    for name, children in samples(text).items():
        check_labels(metric_of(name, declared), children)

    checked = subprocess.run(
        [find_promtool(), "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def is_of_process(name: str) -> bool:
    """Those have sentences of the library's."""
    return name.startswith(("process_", "python_"))


def metric_of(sample: str, declared: Mapping[str, Metric]) -> Metric:
    for suffix in ("", "_bucket", "_count", "_sum"):
        metric = declared.get(sample.removesuffix(suffix) if suffix else sample)
        if metric is not None:
            return metric
    raise AssertionError(f"{sample} is declared nowhere")


def check_labels(metric: Metric, children: Mapping[tuple[tuple[str, str], ...], float]) -> None:
    for labels in children:
        values = dict(labels)
        if metric.kind is Kind.HISTOGRAM:
            values.pop("le", None)
        assert set(values) == set(metric.label_names), metric.name
        for label in metric.labels:
            assert not label.values or values[label.name] in label.values, (metric.name, values)


async def test_a_message_is_counted_at_every_hop(stack: Stack, client: ChatClient) -> None:
    hops: dict[str, dict[str, tuple[tuple[str, str], ...]]] = {
        "ingest-api": {"ingest_api_accepted_to_committed_seconds": ()},
        "timeline": {"timeline_created_to_appended_seconds": (), "timeline_appended_to_applied_seconds": ()},
        "delivery": {
            "delivery_applied_to_sent_seconds": (),
            "delivery_accepted_to_sent_seconds": (("way", "live"),),
        },
    }

    async def read() -> dict[str, tuple[float, float]]:
        found = {}
        for program, names in hops.items():
            values = samples(await scrape(stack, program))
            for name, labels in names.items():
                found[name] = (values[f"{name}_count"][labels], values[f"{name}_sum"][labels])
        return found

    alice, bob = await client.register("alice"), await client.register("bob")
    conversation_id = await client.create_conversation(alice, bob)
    async with client.stream(bob) as events:
        before = await read()
        for number in range(20):
            await client.send(alice, conversation_id, str(number))
        async with asyncio.timeout(30):
            shown = 0
            while shown < 20:
                shown += (await anext(events)).event == "MessageSent"
    after = await read()
    for name, (count, seconds) in after.items():
        assert count >= before[name][0] + 20, name
        assert 0 < seconds - before[name][1] < 30 * (count - before[name][0]), name


async def test_kafka_connect_and_debezium_tell_how_they_are(stack: Stack) -> None:
    found = samples(await scrape_port(stack.ports.connect_jmx))
    assert found["debezium_streaming_connected"] == {(("server", "chat4all"),): 1.0}
    (behind,) = found["debezium_streaming_milliseconds_behind_source"].values()
    assert -1 <= behind < 60_000
    (remaining,) = found["debezium_streaming_queue_remaining_events"].values()
    (capacity,) = found["debezium_streaming_queue_capacity_events"].values()
    assert 0 < remaining <= capacity
    connector = (("connector", "chat4all-outbox"),)
    assert found["kafka_connect_connector_status"] == {(*connector, ("status", "running")): 1.0}
    assert found["kafka_connect_task_status"] == {(*connector, ("status", "running"), ("task", "0")): 1.0}
    for name in ("polled_total", "written_total", "active"):
        assert set(found[f"kafka_connect_source_records_{name}"]) == {(*connector, ("task", "0"))}
    assert found["kafka_connect_worker_connectors"] == {(): 1.0}
    assert set(found["kafka_connect_task_record_failures_total"].values()) == {0.0}
    assert not [
        name for name in found if not name.startswith(("debezium_", "kafka_connect_", "jvm_", "jmx_", "process_"))
    ]


@pytest.mark.parametrize(
    ("exporter", "expected"),
    [
        ("postgres-exporter", ("pg_stat_activity_max_tx_duration", "pg_locks_count")),
        ("redis-exporter", ("redis_memory_used_bytes", "redis_memory_max_bytes", "redis_evicted_keys_total")),
        ("node-exporter", ("node_memory_MemAvailable_bytes", "node_cpu_seconds_total", "node_timex_sync_status")),
    ],
)
async def test_an_exporter_tells_of_its_server(stack: Stack, exporter: str, expected: tuple[str, ...]) -> None:
    text = await scrape(stack, exporter)
    found = samples(text)
    for name in expected:
        assert found[name], name
    for name in ("pg_up", "redis_up"):
        assert set(found.get(name, {(): 1.0}).values()) == {1.0}
    for errors in ("pg_exporter_last_scrape_error", "redis_exporter_last_scrape_error"):
        assert set(found.get(errors, {(): 0.0}).values()) == {0.0}
    secrets = [getattr(stack.secrets, field.name) for field in fields(stack.secrets)]
    assert not [secret for secret in secrets if secret in text]


async def test_the_exporter_of_redis_sees_nothing_that_anybody_wrote(stack: Stack) -> None:
    password = stack.secrets.redis_exporter
    async with Redis(port=stack.ports.redis, username="exporter", password=password) as redis:
        assert await redis.info("memory")
        for command in ("KEYS *", "GET a", "MONITOR", "SLOWLOG GET", "CONFIG GET requirepass", "ACL LIST"):
            with pytest.raises(NoPermissionError):
                await redis.execute_command(*command.split())  # type: ignore[no-untyped-call]
