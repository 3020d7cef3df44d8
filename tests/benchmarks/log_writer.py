"""The log writer without HTTP, all its rules applied, against pgbench calling the same function with one message per
call. Both with generic plans (the role's setting), on the same server, over the same number of conversations."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import tempfile
import time
import uuid
from typing import Any

import psycopg
from prometheus_client import CollectorRegistry
from psycopg.rows import TupleRow

from infra.local.postgres import binaries
from infra.local.stack import Stack
from ingest_api.fields import new_id
from ingest_api.log_writer import LogWriter, NewEntry, new_entry
from ingest_api.telemetry import WriterMetrics, trace_context
from tests.benchmarks.load import Latencies
from tests.chat_client import ChatClient, User

CONVERSATIONS = 200
PGBENCH_CLIENTS = 32
WAITING = (8, 64, 256)
FILLER = "x" * 180
SCRIPT = """\\set n random(0, {last})
SELECT outcome FROM append_entries(
    ARRAY[gen_random_uuid()], ARRAY[('{prefix}' || lpad(to_hex(:n::int), 12, '0'))::uuid], ARRAY['{actor}'::uuid],
    ARRAY['MessageSent'], ARRAY[NULL]::uuid[], ARRAY['{tail}'], ARRAY['{traceparent}'])
"""


async def compare(stack: Stack, *, seconds: float) -> dict[str, Any]:
    """Messages per second of both, in the order A B A, where A is the log writer at each number of senders."""
    client = ChatClient(f"http://127.0.0.1:{stack.ports.ingest_api}", f"http://127.0.0.1:{stack.ports.delivery}")
    prefix = str(uuid.uuid4())[:24]
    try:
        alice = await client.register("alice")
        ids = [f"{prefix}{number:012x}" for number in range(CONVERSATIONS)]
        for conversation_id in ids:
            await client.create_conversation(alice, conversation_id=conversation_id)
    finally:
        await client.close()
    await run_writer(stack, alice, ids, waiting=64, seconds=seconds / 4)
    first = [await run_writer(stack, alice, ids, waiting=waiting, seconds=seconds / 2) for waiting in WAITING]
    theirs = await asyncio.to_thread(run_pgbench, stack, alice, prefix, seconds=seconds)
    second = [await run_writer(stack, alice, ids, waiting=waiting, seconds=seconds / 2) for waiting in WAITING]
    best = max((a["messages_per_second"] + b["messages_per_second"]) / 2 for a, b in zip(first, second, strict=True))
    return {
        "writer": [first, second],
        "pgbench_per_second": theirs,
        "pgbench_clients": PGBENCH_CLIENTS,
        "ratio": round(best / theirs, 1),
    }


async def run_writer(stack: Stack, actor: User, ids: list[str], *, waiting: int, seconds: float) -> dict[str, Any]:
    """Messages per second when `waiting` senders each wait for their answer before they send again."""

    async def connect() -> psycopg.AsyncConnection[TupleRow]:
        return await psycopg.AsyncConnection.connect(**login(stack), autocommit=True)

    writer = LogWriter(
        connect,
        connections=2,
        batch_size=256,
        queue_size=4000,
        timeout_seconds=10,
        metrics=WriterMetrics(CollectorRegistry()),
    )
    writer.start()
    latencies = Latencies()
    traceparent = trace_context(None)
    end = time.perf_counter() + seconds

    async def keep_sending(number: int) -> None:
        while (started := time.perf_counter()) < end:
            number += 1
            await writer.append(message(actor, ids[number % len(ids)], traceparent))
            latencies.record(time.perf_counter() - started)

    await asyncio.gather(*(keep_sending(number * 7) for number in range(waiting)))
    await writer.close()
    return {
        "waiting": waiting,
        "messages_per_second": round(latencies.count / seconds),
        "milliseconds": latencies.milliseconds(),
    }


def run_pgbench(stack: Stack, actor: User, prefix: str, *, seconds: float) -> float:
    """Messages per second of pgbench's clients."""
    tail = message(actor, f"{prefix}{0:012x}", trace_context(None)).tail
    script = SCRIPT.format(
        last=CONVERSATIONS - 1, prefix=prefix, actor=actor.user_id, tail=tail, traceparent=trace_context(None)
    )
    address = login(stack)
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
        file.write(script)
        file.flush()
        command = [
            str(binaries() / "pgbench"),
            *("--no-vacuum", "--protocol=prepared", f"--client={PGBENCH_CLIENTS}", "--jobs=2"),
            *(f"--time={round(seconds)}", f"--file={file.name}"),
            *(
                f"--host={address['host']}",
                f"--port={address['port']}",
                f"--username={address['user']}",
                address["dbname"],
            ),
        ]
        environment = {**os.environ, "PGPASSWORD": address["password"]}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    found = re.search(r"(?m)^tps = ([\d.]+)", done.stdout)
    assert done.returncode == 0, done.stderr
    assert found is not None, done.stdout
    return round(float(found[1]))


def message(actor: User, conversation_id: str, traceparent: str) -> NewEntry:
    """A message of a usual length, as the API would append it."""
    message_id = new_id()
    return new_entry(
        event_id=message_id,
        type="MessageSent",
        conversation_id=conversation_id,
        actor_id=actor.user_id,
        traceparent=traceparent,
        message_id=message_id,
        body={"type": "text", "text": FILLER},
    )


def login(stack: Stack) -> dict[str, Any]:
    """The API's login, for psycopg."""
    return {
        "host": "127.0.0.1",
        "port": stack.ports.postgres,
        "dbname": "chat4all",
        "user": "chat_api",
        "password": stack.secrets.database_api,
    }
