"""The stack that integration, e2e and fault tests run on: real, of their own, up once and gone without trace."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from infra.local.config import StackConfig
from infra.local.stack import Stack
from infra.local.watching import FOR_SECONDS_VARIABLE
from tests.chat_client import ChatClient
from tests.integration.servers import free_port

ROOT = Path(__file__).resolve().parent.parent
MAIL_PORT_VARIABLE = "CHAT4ALL_SMTP_PORT"
COLLECTOR_VARIABLE = "CHAT4ALL_OTLP_ENDPOINT"
CHANNELS_ON_LOOPBACK = {
    "CHAT4ALL_WEBHOOK_ALLOW_HTTP": "true",
    "CHAT4ALL_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",
    "CHAT4ALL_DELIVERY_TIMEOUT_SECONDS": "5",
    "CHAT4ALL_LONGEST_PAUSE_SECONDS": "4",
    "CHAT4ALL_SMTP_HOST": "127.0.0.1",
    "CHAT4ALL_SMTP_SECURITY": "none",
}


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The whole system, on ports of its own. Its channels reach what tests serve on loopback."""
    state_dir = Path(tempfile.mkdtemp(prefix="chat4all-test-"))
    beside = {
        MAIL_PORT_VARIABLE: str(free_port()),
        FOR_SECONDS_VARIABLE: "2",
        # Tests of traces have a collector there, and bring sampled traceparents.
        COLLECTOR_VARIABLE: f"http://127.0.0.1:{free_port()}",
        "CHAT4ALL_TRACE_RATIO": "0",
        # Tests count what is there; the one of the canary has another one of its own.
        "CHAT4ALL_CANARY_INTERVAL_SECONDS": "100000",
    }
    own = Stack(StackConfig.isolated(ROOT, state_dir, {**CHANNELS_ON_LOOPBACK, **beside}))
    try:
        own.up(report=print)
        yield own
    finally:
        own.down()
        own.wipe()
        shutil.rmtree(state_dir, ignore_errors=True)


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[ChatClient]:
    """A chat client of the stack."""
    chat = ChatClient(f"http://127.0.0.1:{stack.ports.ingest_api}", f"http://127.0.0.1:{stack.ports.delivery}")
    yield chat
    await chat.close()
