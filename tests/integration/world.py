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
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet
from pydantic import SecretStr
from redis.asyncio import Redis

from ingest_api.log_writer import APPEND, append_arguments, new_entry
from ingest_api.telemetry import trace_context
from schemas.tokens import ALGORITHM, AUDIENCE
from stream_apps.delivery.__main__ import Server as DeliveryServer
from stream_apps.delivery.__main__ import make_config
from stream_apps.delivery.app import create_app
from stream_apps.delivery.settings import Settings
from stream_apps.log_reader import LogReader
from stream_apps.redis_tables.tables import ReceiptChange, RedisTables
from stream_apps.timeline.projection import events_of_entries, memberships_of_entries
from tests.chat_client import ChatClient, User
from tests.integration.servers import READER, Server, login

ISSUER = "http://chat.test"
CURSOR_SECRET = SecretStr("a secret of the tests")


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
                "INSERT INTO participants (conversation_id, user_id, role, joined_seq) VALUES (%s, %s, %s, 1)",
                (conversation_id, user.user_id, "admin" if user is users[0] else "member"),
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

    async def edit(self, conversation_id: str, message_id: str, text: str, *, project: bool = True) -> None:
        """The first participant edits a message."""
        body = {"type": "text", "text": text}
        await self._happen(conversation_id, "MessageEdited", project=project, message_id=message_id, body=body)

    async def delete(self, conversation_id: str, message_id: str, *, project: bool = True) -> None:
        """The first participant deletes a message."""
        await self._happen(conversation_id, "MessageDeleted", project=project, message_id=message_id)

    async def change_title(self, conversation_id: str, title: str | None, *, project: bool = True) -> None:
        """The first participant gives the conversation another title."""
        await self.database.execute(
            "UPDATE conversations SET title = %s WHERE conversation_id = %s", (title, conversation_id)
        )
        await self._happen(conversation_id, "TitleChanged", project=project, title=title)

    async def join(self, conversation_id: str, user: User, *, role: str = "member", project: bool = True) -> int:
        """The first participant brings a user in (again). The seq at which it joins."""
        async with self.database.transaction():
            await self._happen(conversation_id, "ParticipantJoined", project=False, user_id=user.user_id, role=role)
            seq = await self.last_seq(conversation_id)
            await self.database.execute(
                "INSERT INTO participants (conversation_id, user_id, role, joined_seq) VALUES (%s, %s, %s, %s)"
                " ON CONFLICT (conversation_id, user_id)"
                " DO UPDATE SET joined_seq = excluded.joined_seq, left_seq = NULL, role = excluded.role",
                (conversation_id, user.user_id, role, seq),
            )
        if project:
            await self.project(conversation_id)
        return seq

    async def leave(
        self, conversation_id: str, user: User, *, successor: User | None = None, project: bool = True
    ) -> int:
        """A user leaves, or is removed by the first participant. The seq at which it leaves."""
        fields = {} if successor is None else {"successor_id": successor.user_id}
        async with self.database.transaction():
            await self._happen(conversation_id, "ParticipantLeft", project=False, user_id=user.user_id, **fields)
            seq = await self.last_seq(conversation_id)
            await self.database.execute(
                "UPDATE participants SET left_seq = %s WHERE conversation_id = %s AND user_id = %s",
                (seq, conversation_id, user.user_id),
            )
            if successor is not None:
                await self.database.execute(
                    "UPDATE participants SET role = 'admin' WHERE conversation_id = %s AND user_id = %s",
                    (conversation_id, successor.user_id),
                )
        if project:
            await self.project(conversation_id)
        return seq

    async def advance_receipt(
        self, conversation_id: str, user: User, *, delivered_seq: int, read_seq: int, project: bool = True
    ) -> bytes:
        """A user has received and read up to here. The event's payload."""
        await self.database.execute(
            "INSERT INTO receipts VALUES (%(conversation)s, %(user)s, %(delivered)s, %(read)s)"
            " ON CONFLICT (conversation_id, user_id)"
            " DO UPDATE SET delivered_seq = greatest(receipts.delivered_seq, excluded.delivered_seq),"
            " read_seq = greatest(receipts.read_seq, excluded.read_seq)",
            {"conversation": conversation_id, "user": user.user_id, "delivered": delivered_seq, "read": read_seq},
        )
        event_id = str(uuid.uuid4())
        payload = json.dumps(
            {
                "type": "ReceiptAdvanced",
                "event_id": event_id,
                "conversation_id": conversation_id,
                "user_id": user.user_id,
                "delivered_seq": delivered_seq,
                "read_seq": read_seq,
                "created_at": "2030-01-01T00:00:00.000000Z",
            }
        ).encode()
        if project:
            change = ReceiptChange(user.user_id, delivered_seq, read_seq, event_id, payload)
            await RedisTables(self.redis).advance_receipts({conversation_id: [change]})
        return payload

    async def last_seq(self, conversation_id: str) -> int:
        """How far the log is."""
        row = await (
            await self.database.execute(
                "SELECT last_seq FROM conversations WHERE conversation_id = %s", (conversation_id,)
            )
        ).fetchone()
        assert row is not None
        return int(row[0])

    async def _happen(self, conversation_id: str, kind: str, *, project: bool, **fields: Any) -> None:
        actor = self.participants[conversation_id][0]
        await self._append(conversation_id, actor, str(uuid.uuid4()), kind, **fields)
        if project:
            await self.project(conversation_id)

    async def project(self, conversation_id: str) -> None:
        """Brings the Redis tables to where the log is, as the timeline app does."""
        tables = RedisTables(self.redis)
        after_seq = self.projected.get(conversation_id, 0)
        entries = await self.log.read_entries(conversation_id, after_seq=after_seq, limit=5000)
        memberships = memberships_of_entries(conversation_id, entries)
        for user_id in await tables.note_memberships(memberships):
            await tables.build_user(user_id, await self.log.read_user_conversations(user_id))
        await tables.apply({conversation_id: events_of_entries(conversation_id, entries)})
        await tables.announce(memberships)
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
            "CHAT4ALL_CURSOR_SECRET": CURSOR_SECRET.get_secret_value(),
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
            cursor_secret=CURSOR_SECRET,
            redis_port=self.redis_server.port,
            redis_password=SecretStr(self.redis_server.password),
            database_port=self.postgres_server.port,
            database_password=SecretStr(self.postgres_server.password),
            **settings,
        )
        app = create_app(own)
        server = DeliveryServer(make_config(app, host="127.0.0.1", port=0), app)
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
