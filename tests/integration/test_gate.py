"""Admission and rate limits at real servers: a slot that nobody reads, a Redis that is killed under load, and the API
that asks both."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import uvicorn
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from redis.asyncio import Redis

from infra.local.programs import LIMITER_RIGHTS
from ingest_api.__main__ import Server as ApiServer
from ingest_api.admission.ladder import AdmissionMetrics, Ladder
from ingest_api.admission.model import AdmissionState, Thresholds
from ingest_api.admission.sampler import Sampler, SlotReader
from ingest_api.app import create_app
from ingest_api.settings import Settings
from ingest_api.signing_keys import make_signing_keys
from schemas.outboxes import HOLD_CLASS, HOLD_OBJECT, NAME, Outbox
from tests.chat_client import ChatClient, User
from tests.integration.servers import Server, login, start_postgres, start_redis

SLOT = "test_admission"
GREEN, YELLOW, ORANGE, RED, LOST = AdmissionState


@pytest.fixture(scope="module")
def postgres() -> Iterator[Server]:
    with start_postgres() as server:
        with psycopg.connect(**login(server), autocommit=True) as owner:
            owner.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '128MB'")
            owner.execute("ALTER SYSTEM SET checkpoint_timeout = '1h'")
            owner.execute("SELECT pg_reload_conf()")
        yield server


@pytest.fixture
def redis() -> Iterator[Server]:
    with start_redis() as server:
        yield server


DROP = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s"
CREATE = "SELECT pg_create_logical_replication_slot(%s, 'pgoutput')"


@pytest.fixture(autouse=True)
async def owner(postgres: Server) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    """The database's owner; the slot is made anew for each test."""
    async with await psycopg.AsyncConnection.connect(**login(postgres), autocommit=True) as connection:
        await connection.execute(DROP, ("chat4all_outbox",))
        await connection.execute(CREATE, ("chat4all_outbox",))
        yield connection


async def advance(owner: psycopg.AsyncConnection[Any], slot: str) -> None:
    """As a reader does. The slot lets WAL go up to a snapshot that it has passed, so there must be some."""
    for _ in range(2):
        await owner.execute("SELECT pg_log_standby_snapshot()")
        await owner.execute("SELECT pg_replication_slot_advance(%s, pg_current_wal_lsn())", (slot,))
        await owner.execute("CHECKPOINT")


async def write_wal(owner: psycopg.AsyncConnection[Any], megabytes: int) -> None:
    for _ in range(megabytes):
        await owner.execute("SELECT pg_logical_emit_message(false, 'test', repeat('x', 1000000))")
    await owner.execute("SELECT pg_switch_wal()")


async def test_a_slot_that_nobody_reads_climbs_the_ladder_and_comes_back(
    postgres: Server, owner: psycopg.AsyncConnection[Any]
) -> None:
    await owner.execute(CREATE, (SLOT,))
    ladder = Ladder(Thresholds(), AdmissionMetrics(registry := CollectorRegistry()))

    async def connect() -> psycopg.AsyncConnection[Any]:
        return await psycopg.AsyncConnection.connect(**login(postgres, "chat_api"), autocommit=True)

    reader = SlotReader(connect, slot=SLOT, budget_bytes=1)
    sampler = Sampler(ladder, reader.read, lambda: 0.0, interval_seconds=1)
    try:
        states = []
        for _ in range(12):
            await sampler.read()
            states.append(ladder.state)
            if ladder.state is RED:
                break
            await write_wal(owner, 12)
        assert states == sorted(states)
        assert {GREEN, YELLOW, ORANGE, RED} <= set(states)
        lag = registry.get_sample_value("ingest_api_slot_lag_bytes")
        assert lag is not None
        assert lag > 64 * 1024 * 1024
        await advance(owner, SLOT)
        await sampler.read()
        assert ladder.state is GREEN

        await write_wal(owner, 200)
        await owner.execute("CHECKPOINT")
        await sampler.read()
        assert ladder.state is LOST
        await owner.execute(DROP, (SLOT,))
        await sampler.read()
        assert ladder.state is LOST
        await owner.execute(CREATE, (SLOT,))
        await sampler.read()
        assert ladder.state is GREEN
    finally:
        await reader.close()
        await owner.execute(DROP, (SLOT,))


async def test_every_outbox_counts_and_a_hold_keeps_writes_away(
    postgres: Server, owner: psycopg.AsyncConnection[Any]
) -> None:
    ladder = Ladder(Thresholds(), AdmissionMetrics(CollectorRegistry()))

    async def connect() -> psycopg.AsyncConnection[Any]:
        return await psycopg.AsyncConnection.connect(**login(postgres, "chat_api"), autocommit=True)

    reader = SlotReader(connect, slot=NAME, budget_bytes=1)
    sampler = Sampler(ladder, reader.read, lambda: 0.0, interval_seconds=1)
    second = Outbox(1).slot

    async def state() -> AdmissionState:
        await sampler.read()
        return ladder.state

    try:
        assert await state() is GREEN
        await owner.execute(f"CREATE PUBLICATION {second}".encode())
        assert await state() is GREEN, "it streams nothing yet"
        await owner.execute(f"ALTER PUBLICATION {second} SET TABLE outbox".encode())
        assert await state() is LOST, "what is its share would not be streamed"
        await owner.execute(CREATE, (second,))
        assert await state() is GREEN

        await owner.execute("SELECT pg_advisory_lock(%s, %s)", (HOLD_CLASS, HOLD_OBJECT))
        assert await state() is LOST
        await owner.execute("SELECT pg_advisory_unlock_all()")
        assert await state() is GREEN
    finally:
        await reader.close()
        await owner.execute(DROP, (second,))
        await owner.execute(f"DROP PUBLICATION IF EXISTS {second}".encode())


async def test_a_slot_that_cannot_be_read_leaves_the_state_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    ladder = Ladder(Thresholds(), AdmissionMetrics(registry := CollectorRegistry()))
    ladder.state = ORANGE

    async def connect() -> psycopg.AsyncConnection[Any]:
        raise psycopg.OperationalError("nobody there")

    sampler = Sampler(ladder, SlotReader(connect, slot=SLOT, budget_bytes=1).read, lambda: 0.0, interval_seconds=1)
    with caplog.at_level(logging.WARNING):
        await sampler.read()
        await sampler.read()
    assert ladder.state is ORANGE
    assert registry.get_sample_value("ingest_api_admission_failed_samples_total") == 2
    assert len(caplog.records) == 1


@asynccontextmanager
async def api(postgres: Server, folder: Path, **settings: Any) -> AsyncIterator[tuple[ChatClient, ApiServer]]:
    """The running API, and a client of it."""
    keys = folder / "keys.json"
    make_signing_keys(keys, folder / "public.json")
    app = create_app(
        Settings(
            signing_key_file=keys,
            database_port=postgres.port,
            database_password=SecretStr(postgres.password),
            admission_interval_seconds=0.1,
            **settings,
        )
    )
    server = ApiServer(
        uvicorn.Config(app, port=0, log_config=None, proxy_headers=False, timeout_graceful_shutdown=5), app
    )
    serving = asyncio.create_task(server.serve())
    while not server.started:
        assert not serving.done()
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    client = ChatClient(f"http://127.0.0.1:{port}", "http://delivery.invalid")
    try:
        yield client, server
    finally:
        await client.close()
        server.should_exit = True
        await serving


async def make_pair(client: ChatClient) -> tuple[User, str]:
    user = await client.register()
    return user, await client.create_conversation(user)


def shared_by(redis: Server) -> dict[str, Any]:
    return {"redis_port": redis.port, "redis_password": SecretStr(redis.password), "redis_retry_seconds": 0.2}


async def metric(client: ChatClient, name: str) -> float:
    text = (await client.http.get(f"{client.ingest_url}/metrics")).text
    return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"{name} "))


async def test_a_user_over_their_limit_is_told_so_and_others_are_not_held_up(
    postgres: Server, redis: Server, tmp_path: Path
) -> None:
    async with api(postgres, tmp_path, limit_user_sends="5/60s", **shared_by(redis)) as (client, _):
        alice, conversation_id = await make_pair(client)
        bob, of_bob = await make_pair(client)
        answers = [await client.post_message(alice, conversation_id, "hi") for _ in range(7)]
        assert [answer.status_code for answer in answers] == [201] * 5 + [429] * 2
        assert [answer.headers["RateLimit-Remaining"] for answer in answers] == list("4321000")
        refused = answers[-1]
        assert refused.json()["type"].endswith(":rate-limited")
        assert refused.json()["limit"] == "user-sends"
        assert 1 <= int(refused.headers["Retry-After"]) <= 12
        assert refused.headers["RateLimit-Policy"] == "5;w=60"
        assert (await client.post_message(bob, of_bob, "hi")).status_code == 201


async def test_a_stranger_cannot_use_up_a_conversations_limit(postgres: Server, redis: Server, tmp_path: Path) -> None:
    async with api(postgres, tmp_path, limit_conversation_sends="3/60s", **shared_by(redis)) as (client, _):
        alice, conversation_id = await make_pair(client)
        mallory = await client.register()
        for _ in range(10):
            assert (await client.post_message(mallory, conversation_id, "hi")).status_code == 404
        answers = [(await client.post_message(alice, conversation_id, "hi")).status_code for _ in range(4)]
        assert answers == [201, 201, 201, 429]


async def test_logins_are_limited_by_address_whatever_a_client_says_about_it(
    postgres: Server, redis: Server, tmp_path: Path
) -> None:
    async with api(postgres, tmp_path, limit_address_logins="2/60s", **shared_by(redis)) as (client, _):
        answers = [
            await client.http.post(
                f"{client.ingest_url}/oauth/token",
                data={"grant_type": "password", "username": "nobody", "password": "wrong"},
                headers={"X-Forwarded-For": f"198.51.100.{number}"},
            )
            for number in range(3)
        ]
        assert [answer.status_code for answer in answers] == [400, 400, 429]
        assert int(answers[-1].headers["Retry-After"]) >= 1


async def test_redis_killed_under_load_is_never_an_error_for_a_client(
    postgres: Server, redis: Server, tmp_path: Path
) -> None:
    quota = "100000/10s"
    async with api(postgres, tmp_path, limit_user_sends=quota, **shared_by(redis)) as (client, server):
        # As doubtful as it gets: a hit may stay unshared, so that each second request asks Redis.
        gate = server._app.state.gate
        gate._user_sends.max_unshared = 1
        user, conversation_id = await make_pair(client)
        statuses: list[int] = []
        is_over = False

        async def load() -> None:
            while not is_over:
                statuses.append((await client.post_message(user, conversation_id, "hi")).status_code)

        senders = [asyncio.create_task(load()) for _ in range(8)]
        await asyncio.sleep(0.5)
        redis.stop()
        await asyncio.sleep(1)
        assert await metric(client, "ingest_api_rate_limits_are_local") == 1
        before = len(statuses)
        await asyncio.sleep(0.3)
        assert len(statuses) > before
        redis.start()
        async with asyncio.timeout(10):
            while await metric(client, "ingest_api_rate_limits_are_local"):
                await asyncio.sleep(0.1)
        is_over = True
        await asyncio.gather(*senders)
        assert set(statuses) == {201}


async def test_the_limiters_redis_user_can_do_what_it_must_and_no_more(
    postgres: Server, redis: Server, tmp_path: Path
) -> None:
    async with Redis(port=redis.port, password=redis.password) as admin:
        await admin.execute_command("ACL", "SETUSER", "limiter", "on", ">secret", *LIMITER_RIGHTS.split())  # type: ignore[no-untyped-call]
        own = {**shared_by(redis), "redis_username": "limiter", "redis_password": SecretStr("secret")}
        async with api(postgres, tmp_path, limit_user_sends="5/60s", **own) as (client, _):
            user, conversation_id = await make_pair(client)
            answers = [(await client.post_message(user, conversation_id, "hi")).status_code for _ in range(6)]
            assert answers == [201] * 5 + [429]
            assert await metric(client, "ingest_api_rate_limits_are_local") == 0
        assert await admin.exists(f"ratelimit:user-sends:{user.user_id}")
        denied = await admin.execute_command("ACL", "DRYRUN", "limiter", "GET", "conv:{x}:head")  # type: ignore[no-untyped-call]
        assert b"no permissions" in denied


async def test_a_slot_that_falls_behind_stops_writes_and_says_so(
    postgres: Server, redis: Server, owner: psycopg.AsyncConnection[Any], tmp_path: Path
) -> None:
    async with api(postgres, tmp_path, **shared_by(redis)) as (client, _):
        await advance(owner, "chat4all_outbox")
        user, conversation_id = await make_pair(client)
        ready = await client.http.get(f"{client.ingest_url}/readyz")
        assert ready.json() == {"status": "ready", "admission": "green"}
        for _ in range(12):
            await write_wal(owner, 12)
            await asyncio.sleep(0.3)
            if (await client.post_message(user, conversation_id, "hi")).status_code == 503 and (
                await metric(client, "ingest_api_admission_state")
            ) == RED:
                break
        refused = await client.post_message(user, conversation_id, "hi")
        assert refused.status_code == 503
        assert refused.json()["type"].endswith(":overloaded")
        assert refused.json()["admission"] == "red"
        assert 5 <= int(refused.headers["Retry-After"]) <= 30
        unready = await client.http.get(f"{client.ingest_url}/readyz")
        assert unready.status_code == 503
        assert "writes are refused" in unready.json()["detail"]
        assert (await client.http.get(f"{client.ingest_url}/healthz")).status_code == 200
        assert await client.get_token(user.username)
        await advance(owner, "chat4all_outbox")
        await client.send_until_accepted(user, conversation_id, "again", within_seconds=5)


async def test_ids_of_requests_are_taken_over_made_and_echoed(postgres: Server, redis: Server, tmp_path: Path) -> None:
    async with api(postgres, tmp_path, **shared_by(redis)) as (client, _):
        url = f"{client.ingest_url}/healthz"
        assert (await client.http.get(url, headers={"X-Request-ID": "abc-1"})).headers["X-Request-ID"] == "abc-1"
        made = (await client.http.get(url, headers={"X-Request-ID": "a b{}"})).headers["X-Request-ID"]
        assert len(bytes.fromhex(made)) == 16
        trace_id = uuid.uuid4().hex
        traced = await client.http.get(url, headers={"traceparent": f"00-{trace_id}-{'1' * 16}-01"})
        assert traced.headers["X-Request-ID"] == trace_id


async def test_what_is_in_flight_is_finished_and_what_comes_then_is_refused(
    postgres: Server, redis: Server, owner: psycopg.AsyncConnection[Any], tmp_path: Path
) -> None:
    async with api(postgres, tmp_path, **shared_by(redis)) as (client, server):
        user, conversation_id = await make_pair(client)
        async with owner.transaction():
            await owner.execute("SELECT FROM conversations WHERE conversation_id = %s FOR UPDATE", (conversation_id,))
            in_flight = asyncio.create_task(client.post_message(user, conversation_id, "hi"))
            await asyncio.sleep(0.2)
            server._app.state.gate.close()
            refused = await client.post_message(user, conversation_id, "too late")
            assert refused.status_code == 503
            assert refused.headers["connection"] == "close"
            assert refused.json()["type"].endswith(":shutting-down")
            assert (await client.http.get(f"{client.ingest_url}/healthz")).status_code == 200
            server.should_exit = True
            await asyncio.sleep(0.3)
            assert not in_flight.done()
        assert (await in_flight).status_code == 201
        with pytest.raises(httpx.TransportError):
            await client.post_message(user, conversation_id, "the port is closed")
