"""Alerts really fire, and pass: faults on the running stack, and what Alertmanager then says. The stack of tests waits
two seconds where rules wait minutes (CHAT4ALL_ALERT_FOR_SECONDS); all else is as it is. `make faults` plants all."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from aiokafka import AIOKafkaProducer
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from infra.local.ports import HOST
from infra.local.stack import Stack
from infra.local.watching import JOBS
from schemas.ids import conversation_key
from schemas.topics import CONVERSATION_EVENTS
from tests.alert_cases import metrics_in, read_groups
from tests.chat_client import ChatClient
from tests.exporters import EXPORTED, OF_PROMETHEUS
from tests.faults.test_slot_lag import TEXTS, room_for_wal

SECONDS = 90.0
"""How long an alert may take under whatever else the machine does. Alone it takes about fifteen."""

LONGEST_WINDOW_SECONDS = 400.0
"""How long those take to pass that look back five minutes."""

Plant = Callable[[Stack, ChatClient, Path], AbstractAsyncContextManager[str]]
"""Plants a fault and gives the label that its alert must have; mends it in the end."""


class Watching:
    """What Prometheus and Alertmanager of a stack say."""

    def __init__(self, stack: Stack, http: httpx.AsyncClient) -> None:
        self._prometheus = f"http://{HOST}:{stack.ports.prometheus}"
        self._alertmanager = f"http://{HOST}:{stack.ports.alertmanager}"
        self._http = http

    async def values(self, query: str) -> dict[str, float]:
        """job -> value of an instant query's results."""
        found = (await self._ask("/api/v1/query", query=query))["data"]["result"]
        return {each["metric"].get("job", ""): float(each["value"][1]) for each in found}

    async def told_metrics(self, job: str) -> set[str]:
        """The names of the metrics that this job's targets tell, with or without a value."""
        found = await self._ask("/api/v1/targets/metadata", match_target=f'{{job="{job}"}}')
        return {each["metric"] for each in found["data"]}

    async def firing(self, alert: str, label: str = "") -> bool:
        """Whether Alertmanager holds this alert, with this label value among its labels."""
        answer = await self._http.get(f"{self._alertmanager}/api/v2/alerts", params={"filter": f'alertname="{alert}"'})
        answer.raise_for_status()
        return any(not label or label in each["labels"].values() for each in answer.json())

    async def wait_until(self, *, fires: bool, alert: str, label: str, seconds: float = SECONDS) -> None:
        async with asyncio.timeout(seconds):
            while await self.firing(alert, label) is not fires:
                await asyncio.sleep(0.5)

    async def _ask(self, path: str, **parameters: str) -> Any:
        answer = await self._http.get(f"{self._prometheus}{path}", params=parameters)
        answer.raise_for_status()
        return answer.json()


@pytest.fixture
async def watching(stack: Stack) -> AsyncIterator[Watching]:
    """Prometheus and Alertmanager of the stack, once every program has been scraped: of a counter that grew before that
    nobody knows that it did."""
    async with httpx.AsyncClient(trust_env=False) as http:
        own = Watching(stack, http)
        expected = set(JOBS.values())
        async with asyncio.timeout(SECONDS):
            while not expected <= {job for job, is_up in (await own.values("up")).items() if is_up}:
                await asyncio.sleep(0.5)
        yield own


# --- Faults ---


def stopped(program: str) -> Plant:
    """A program that is stopped."""

    @asynccontextmanager
    async def plant(stack: Stack, client: ChatClient, folder: Path) -> AsyncIterator[str]:
        await asyncio.to_thread(stack.stop_program, program)
        try:
            yield ""
        finally:
            await asyncio.to_thread(stack.start_program, program)

    return plant


@asynccontextmanager
async def worker_away(stack: Stack, client: ChatClient, folder: Path) -> AsyncIterator[str]:
    """The timeline's only worker, killed and not started again."""
    os.kill(stack.process_id("timeline"), signal.SIGKILL)
    async with stopped("timeline")(stack, client, folder):
        yield "timeline"


async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """What a server does when hands have been shaken."""
    writer.close()


@asynccontextmanager
async def certificate_that_ends(stack: Stack, client: ChatClient, folder: Path) -> AsyncIterator[str]:
    """A server whose certificate was made for a few seconds, and one entry among the targets."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(make_certificate(folder, seconds=5))
    server = await asyncio.start_server(hang_up, HOST, 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    targets = stack.config.state_dir / "prometheus" / "certificates" / "test.yml"
    prober = f"{HOST}:{stack.ports.blackbox_exporter}"
    targets.write_text(yaml.safe_dump([{"targets": [f"{HOST}:{port}"], "labels": {"__prober": prober}}]))
    try:
        yield f"{HOST}:{port}"
    finally:
        targets.unlink()
        server.close()
        await server.wait_closed()


@asynccontextmanager
async def poison(stack: Stack, client: ChatClient, folder: Path) -> AsyncIterator[str]:
    """Records of one conversation that nobody can read, one after another until the alert is there: of a counter's
    first step a scrape may know nothing."""
    producer = AIOKafkaProducer(bootstrap_servers=f"{HOST}:{stack.ports.kafka}")
    await producer.start()
    key = conversation_key(str(uuid.uuid4())).encode()

    async def send() -> None:
        while True:
            await producer.send_and_wait(CONVERSATION_EVENTS.name, b"{", key, headers=[("seq", b"1")])
            await asyncio.sleep(1)

    sending = asyncio.create_task(send())
    try:
        yield "timeline"
    finally:
        sending.cancel()
        await producer.stop()


@asynccontextmanager
async def slot_that_grows(stack: Stack, client: ChatClient, folder: Path) -> AsyncIterator[str]:
    """A slot with little room, messages that fill it, and no connector."""
    alice = await client.register("alice")
    conversation_id = await client.create_conversation(alice)
    with room_for_wal(stack, "128MB"):
        async with stopped("connect")(stack, client, folder):
            for number in range(450):
                await client.post_message(alice, conversation_id, TEXTS[number % len(TEXTS)])
            yield ""


@asynccontextmanager
async def redis_away(stack: Stack, client: ChatClient, folder: Path) -> AsyncIterator[str]:
    """No Redis, and somebody who reads."""
    alice = await client.register("alice")
    async with stopped("redis")(stack, client, folder):

        async def read() -> None:
            while True:
                await client.get(alice, "/v1/conversations")
                await asyncio.sleep(0.2)

        reading = asyncio.create_task(read())
        try:
            yield ""
        finally:
            reading.cancel()


Planted = tuple[str, Plant]
ALWAYS: tuple[Planted, ...] = (
    ("DeadLetters", poison),
    ("CertificateEnds", certificate_that_ends),
    ("ProgramDown", worker_away),
)
"""In this order: records are set aside by a worker that is there."""

OTHERS: tuple[Planted, ...] = (
    ("ConnectDown", stopped("connect")),
    ("SlotHeadroomLow", slot_that_grows),
    ("DeliveryRedisFails", redis_away),
    ("KafkaDown", stopped("kafka")),
    ("GatewayDown", stopped("gateway")),
    ("SideProgramDown", stopped("router")),
)
GROUPS = [ALWAYS, *((each,) for each in OTHERS)]
LOOKS_BACK = {"DeadLetters"}
"""Alerts about what has happened, which pass when it is five minutes ago."""


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("faults", GROUPS, ids=lambda faults: "+".join(alert for alert, _ in faults))
async def test_faults_make_their_alerts_fire_and_pass(
    stack: Stack, client: ChatClient, watching: Watching, tmp_path: Path, faults: tuple[Planted, ...]
) -> None:
    """Those of a group overlap, so that they take little longer than one."""
    planted: list[tuple[str, str]] = []
    async with AsyncExitStack() as mending:
        for alert, plant in faults:
            label = await mending.enter_async_context(plant(stack, client, tmp_path))
            await watching.wait_until(fires=True, alert=alert, label=label)
            planted.append((alert, label))
    for alert, label in planted:
        if alert not in LOOKS_BACK:
            await watching.wait_until(fires=False, alert=alert, label=label)
        else:
            await watching.wait_until(fires=False, alert=alert, label=label, seconds=LONGEST_WINDOW_SECONDS)


async def test_prometheus_scrapes_everything_that_tells_metrics(stack: Stack, watching: Watching) -> None:
    assert {job for job, is_up in (await watching.values("up")).items() if not is_up} == set()
    await watching.wait_until(fires=True, alert="DeadMansSwitch", label="prometheus")


async def test_what_rules_ask_for_is_told(stack: Stack, watching: Watching) -> None:
    """By the exporters and by our programs, as Prometheus has seen them."""
    jobs = set(JOBS.values())
    told = {job: await watching.told_metrics(job) for job in jobs}
    asked = {metric for _, group in read_groups() for rule in group["rules"] for metric in metrics_in(rule["expr"])}
    probed = {name for job, names in EXPORTED.items() if job not in jobs for name in names}
    known = set().union(*told.values()) | probed | OF_PROMETHEUS

    assert {
        metric
        for metric in asked
        if ":" not in metric and not {metric, metric.removesuffix("_total"), base_of(metric)} & known
    } == set()
    for job in jobs & set(EXPORTED):
        assert {name for name in EXPORTED[job] if not {name, name.removesuffix("_total")} & told[job]} == set(), job


def base_of(metric: str) -> str:
    """The histogram that a series is of."""
    for suffix in ("_bucket", "_count", "_sum"):
        metric = metric.removesuffix(suffix)
    return metric


def make_certificate(folder: Path, *, seconds: int) -> Path:
    """A file with a self-signed certificate for so long, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "chat.example")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(seconds=seconds))
        .sign(key, hashes.SHA256())
    )
    path = folder / "short-lived.pem"
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + certificate.public_bytes(Encoding.PEM)
    )
    return path
