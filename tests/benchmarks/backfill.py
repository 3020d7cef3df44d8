"""Backfill: a Redis that was lost comes back from Postgres, by the command that an operator would run."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from typing import Any

import psycopg
import redis.asyncio as redis_client

from infra.local.postgres import DATABASE, OWNER
from infra.local.stack import Stack
from tests.conftest import ROOT

LONG = (150, 1000)
SHORT = (2000, 20)
"""Conversations of each kind, and how many entries each of them has."""

FILL = """
    WITH someone AS (
        INSERT INTO users (user_id, username, display_name, password_hash)
        SELECT gen_random_uuid(), 'filler-' || gen_random_uuid(), 'x', 'x' FROM generate_series(1, 20)
        RETURNING user_id),
    made AS (
        INSERT INTO conversations (conversation_id, title, created_by, last_seq)
        SELECT gen_random_uuid(), 'a conversation ' || n, (SELECT min(user_id::text)::uuid FROM someone), %(entries)s
        FROM generate_series(1, %(conversations)s) n RETURNING conversation_id, created_by),
    seats AS (
        INSERT INTO participants (conversation_id, user_id, role, joined_seq)
        SELECT conversation_id, user_id, 'member', 1 FROM made CROSS JOIN (SELECT * FROM someone LIMIT 5) p)
    INSERT INTO conversation_log (conversation_id, seq, event_id, type, actor_id, payload, created_at)
    SELECT conversation_id, seq, event_id, 'MessageSent', created_by, json_build_object(
        'seq', seq, 'created_at', '2026-01-02T03:04:05.678901Z', 'event_id', event_id, 'type', 'MessageSent',
        'conversation_id', conversation_id, 'actor_id', created_by, 'message_id', event_id,
        'body', json_build_object('type', 'text', 'text', repeat('x', 180)))::text, clock_timestamp()
    FROM (SELECT conversation_id, created_by, seq, gen_random_uuid() AS event_id
          FROM made CROSS JOIN generate_series(1, %(entries)s) seq) entry
"""


async def measure(stack: Stack) -> dict[str, Any]:
    """Entries per second of `python -m stream_apps.backfill --all` into an empty Redis, its start included."""
    async with await psycopg.AsyncConnection.connect(
        host="127.0.0.1",
        port=stack.ports.postgres,
        dbname=DATABASE,
        user=OWNER,
        password=stack.secrets.database_owner,
        autocommit=True,
    ) as database:
        for conversations, entries in (LONG, SHORT):
            await database.execute(FILL, {"conversations": conversations, "entries": entries})
        await database.execute("VACUUM ANALYZE conversation_log, conversations, participants")
    async with redis_client.Redis(port=stack.ports.redis, password=stack.secrets.redis) as redis:
        await redis.flushall()
        started = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "stream_apps.backfill", "--all", "--json"),
            cwd=ROOT,
            env={"PATH": os.defpath, **stack.environment_of("timeline")},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        output, _ = await process.communicate()
        seconds = time.perf_counter() - started
    assert process.returncode == 0, output
    done = json.loads(output)
    assert done["entries"] >= LONG[0] * LONG[1] + SHORT[0] * SHORT[1]
    return {
        "conversations": done["rebuilt"],
        "entries": done["entries"],
        "seconds": round(seconds, 2),
        "entries_per_second": round(done["entries"] / seconds),
    }
