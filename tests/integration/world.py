"""A chat world on Redis and PostgreSQL alone: conversations go straight into the log, and into the Redis tables when a
test says so (as the timeline app would put them there). Delivery runs in the test's own event loop."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import uvicorn
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet
from pydantic import SecretStr
from redis.asyncio import Redis

from ingest_api.log_writer import APPEND, append_arguments, new_entry
from ingest_api.telemetry import trace_context
from schemas.tokens import ALGORITHM, AUDIENCE
from stream_apps.delivery.__main__ import Server as DeliveryServer
from stream_apps.delivery.app import create_app
from stream_apps.delivery.settings import Settings
from stream_apps.log_reader import LogReader
from stream_apps.redis_tables.tables import Join, RedisTables
from stream_apps.timeline.projection import events_of_entries
from tests.chat_client import ChatClient, User
from tests.integration.servers import READER, Server, login

ISSUER = "http://chat.test"


@dataclass
class World:
    """Writes what others write: the log as the API does, the Redis tables as the timeline app does."""

    redis_server: Server
    postgres_server: Server
    redis: Redis
    database: psycopg.AsyncConnection[tuple[Any, ...]]
    log: LogReader
    key: ECKey
    jwks_file: Path
    participants: dict[str, list[User]] = field(default_factory=dict)
    projected: dict[str, int] = field(default_factory=dict)

    async def register(self, *, lifetime_seconds: float = 900) -> User:
        user_id = str(uuid.uuid4())
        await self.database.execute(
            "INSERT INTO users (user_id, username, display_name, password_hash) VALUES (%s, %s, 'x', 'x')",
            (user_id, user_id),
        )
        return User(user_id, user_id, self.make_token(user_id, lifetime_seconds=lifetime_seconds))

    def make_token(self, user_id: str, *, lifetime_seconds: float = 900, **claims: Any) -> str:
        now = time.time()
        return jwt.encode(
            {"alg": ALGORITHM, "typ": "at+jwt", "kid": self.key.kid},
            {
                "iss": ISSUER,
                "aud": AUDIENCE,
                "sub": user_id,
                "client_id": "chat4all",
                "scope": "chat",
                "exp": now + lifetime_seconds,
                **claims,
            },
            self.key,
        )

    async def create_conversation(self, *users: User, title: str | None = "a title", project: bool = True) -> str:
        conversation_id = str(uuid.uuid4())
        await self.database.execute(
            "INSERT INTO conversations (conversation_id, title, created_by) VALUES (%s, %s, %s)",
            (conversation_id, title, users[0].user_id),
        )
        for user in users:
            await self.database.execute(
                "INSERT INTO participants (conversation_id, user_id, role, joined_seq) VALUES (%s, %s, 'member', 1)",
                (conversation_id, user.user_id),
            )
        self.participants[conversation_id] = list(users)
        participants = [user.user_id for user in users]
        await self._append(
            conversation_id, users[0], conversation_id, "ConversationCreated", title=title, participants=participants
        )
        if project:
            await self.project(conversation_id)
        return conversation_id

    async def send(self, conversation_id: str, *texts: str, project: bool = True) -> list[str]:
        """The message ids of messages by the first participant."""
        message_ids = [str(uuid.uuid4()) for _ in texts]
        for message_id, text in zip(message_ids, texts, strict=True):
            await self._append(
                conversation_id,
                self.participants[conversation_id][0],
                message_id,
                "MessageSent",
                message_id=message_id,
                body={"type": "text", "text": text},
            )
        if project:
            await self.project(conversation_id)
        return message_ids

    async def project(self, conversation_id: str) -> None:
        """Brings the Redis tables to where the log is, as the timeline app does."""
        tables = RedisTables(self.redis)
        after_seq = self.projected.get(conversation_id, 0)
        entries = await self.log.read_entries(conversation_id, after_seq=after_seq, limit=5000)
        users = self.participants[conversation_id] if after_seq == 0 else []
        joins = [Join(user.user_id, conversation_id, 1) for user in users]
        for user_id in await tables.join(joins):
            await tables.build_user(user_id, await self.log.read_user_conversations(user_id))
        await tables.apply({conversation_id: events_of_entries(conversation_id, entries)})
        await tables.announce(joins)
        self.projected[conversation_id] = entries[-1].seq

    async def rebuild(self, conversation_id: str) -> None:
        """Rebuilds the tables of a conversation, as the timeline app does after Redis was lost."""
        snapshot = await self.log.read_snapshot(conversation_id, entries=1000)
        assert snapshot is not None
        await RedisTables(self.redis).rebuild(snapshot)
        self.projected[conversation_id] = snapshot.seq

    def delivery_environment(self) -> dict[str, str]:
        return {
            "CHAT4ALL_ISSUER": ISSUER,
            "CHAT4ALL_JWKS_FILE": str(self.jwks_file),
            "CHAT4ALL_REDIS_PORT": str(self.redis_server.port),
            "CHAT4ALL_REDIS_PASSWORD": self.redis_server.password,
            "CHAT4ALL_DATABASE_PORT": str(self.postgres_server.port),
            "CHAT4ALL_DATABASE_PASSWORD": self.postgres_server.password,
        }

    @asynccontextmanager
    async def delivery(self, **settings: Any) -> AsyncIterator[ChatClient]:
        """A running delivery, and a client of it."""
        own = Settings(
            issuer=ISSUER,
            jwks_file=self.jwks_file,
            redis_port=self.redis_server.port,
            redis_password=SecretStr(self.redis_server.password),
            database_port=self.postgres_server.port,
            database_password=SecretStr(self.postgres_server.password),
            **settings,
        )
        app = create_app(own)
        server = DeliveryServer(uvicorn.Config(app, port=0, log_config=None, timeout_graceful_shutdown=5), app)
        serving = asyncio.create_task(server.serve())
        while not server.started:
            assert not serving.done()
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        client = ChatClient("http://ingest.invalid", f"http://127.0.0.1:{port}")
        try:
            yield client
        finally:
            await client.close()
            server.should_exit = True
            await serving

    async def _append(self, conversation_id: str, actor: User, event_id: str, kind: str, **fields: Any) -> None:
        entry = new_entry(
            event_id=event_id,
            type=kind,
            conversation_id=conversation_id,
            actor_id=actor.user_id,
            traceparent=trace_context(None),
            **fields,
        )
        row = await (await self.database.execute(APPEND, append_arguments([entry]))).fetchone()
        assert row is not None
        assert row[0] == "appended"


@asynccontextmanager
async def create_world(redis_server: Server, postgres_server: Server, folder: Path) -> AsyncIterator[World]:
    """A world with an empty Redis and nobody in it yet."""
    key = ECKey.generate_key("P-256", auto_kid=True)
    jwks_file = folder / "jwks.json"
    jwks_file.write_text(json.dumps(KeySet([key]).as_dict(private=False)))
    async with (
        Redis(port=redis_server.port, password=redis_server.password) as redis,
        await psycopg.AsyncConnection.connect(**login(postgres_server), autocommit=True) as database,
        LogReader(login(postgres_server, READER)) as log,
    ):
        await redis.flushall()
        yield World(redis_server, postgres_server, redis, database, log, key, jwks_file)
