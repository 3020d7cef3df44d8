"""The ingest API on PostgreSQL alone, in the test's own event loop: no stack, no network between client and API."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import psycopg
from fastapi import FastAPI
from joserfc import jwt
from prometheus_client import CollectorRegistry
from psycopg.rows import TupleRow
from pydantic import SecretStr

from ingest_api.app import create_app
from ingest_api.group_commit import Connect
from ingest_api.limits.quotas import Quota
from ingest_api.log_writer import LogWriter
from ingest_api.settings import Settings
from ingest_api.signing_keys import make_signing_keys
from ingest_api.telemetry import WriterMetrics
from schemas.key_files import read_key_set
from schemas.tokens import ALGORITHM, AUDIENCE
from tests.chat_client import User
from tests.integration.servers import Server, login

API = "chat_api"
ISSUER = "http://chat.test"


@dataclass
class Desk:
    """A running API and the database behind it, with the owner's eyes."""

    server: Server
    app: FastAPI
    settings: Settings
    http: httpx.AsyncClient
    database: psycopg.AsyncConnection[tuple[Any, ...]]

    async def register(self) -> User:
        user_id = str(uuid.uuid4())
        await self.database.execute(
            "INSERT INTO users (user_id, username, display_name, password_hash) VALUES (%s, %s, 'x', 'x')",
            (user_id, f"user-{user_id}"),
        )
        return User(user_id, f"user-{user_id}", self._token(user_id, "chat4all", "chat"))

    def with_expired_token(self, user: User) -> User:
        """The same user, a second too late."""
        return replace(user, token=self._token(user.user_id, "chat4all", "chat", lifetime_seconds=-1))

    def _token(self, subject: str, client_id: str, scope: str, *, lifetime_seconds: int = 900) -> str:
        keys = read_key_set(self.settings.signing_key_file)
        return jwt.encode(
            {"alg": ALGORITHM, "typ": "at+jwt", "kid": keys.keys[0].kid},
            {
                "iss": ISSUER,
                "aud": AUDIENCE,
                "sub": subject,
                "client_id": client_id,
                "scope": scope,
                "iat": int(time.time()),
                "exp": int(time.time()) + lifetime_seconds,
                "jti": str(uuid.uuid4()),
            },
            keys.keys[0],
        )

    def client(self, client_id: str, scope: str) -> User:
        """A client that acts for itself."""
        return User("", client_id, self._token(client_id, client_id, scope))

    async def notes_are_written(self) -> None:
        """Waits for what goes into the audit log on the side."""
        await self.app.state.chat.audit.finish_notes()

    async def ask(self, user: User, method: str, path: str, json: Any = None, **headers: str) -> httpx.Response:
        """One request. Headers by their names in snake case."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.http.request(method, path, json=json, headers={**user.headers, **named})

    async def create_conversation(self, *users: User) -> str:
        answer = await self.ask(
            users[0], "POST", "/v1/conversations", {"title": "t", "participants": [u.user_id for u in users[1:]]}
        )
        answer.raise_for_status()
        return str(answer.json()["conversation_id"])

    async def send(self, user: User, conversation_id: str, text: str = "hi", **fields: Any) -> str:
        """The message's id."""
        answer = await self.ask(
            user,
            "POST",
            f"/v1/conversations/{conversation_id}/messages",
            {"body": {"type": "text", "text": text}, **fields},
        )
        answer.raise_for_status()
        return str(answer.json()["message_id"])

    async def rows(self, statement: str, *arguments: object) -> list[tuple[Any, ...]]:
        return await (await self.database.execute(statement.encode(), arguments)).fetchall()

    async def entries(self, conversation_id: str) -> list[tuple[int, str]]:
        """Seq and type of every log entry."""
        rows = await self.rows(
            "SELECT seq, type FROM conversation_log WHERE conversation_id = %s ORDER BY seq", conversation_id
        )
        return [(row[0], row[1]) for row in rows]

    async def payload(self, conversation_id: str, seq: int) -> str:
        rows = await self.rows(
            "SELECT payload FROM conversation_log WHERE conversation_id = %s AND seq = %s", conversation_id, seq
        )
        return str(rows[0][0])

    @asynccontextmanager
    async def writer(self, **settings: Any) -> AsyncIterator[LogWriter]:
        """A log writer of its own, as another API process would have."""
        arguments: dict[str, Any] = {
            "connections": 2,
            "batch_size": 256,
            "queue_size": 50_000,
            "timeout_seconds": 20.0,
            "metrics": WriterMetrics(CollectorRegistry()),
            **settings,
        }
        writer = LogWriter(connect_to(self.server), **arguments)
        writer.start()
        try:
            yield writer
        finally:
            await writer.close()


def connect_to(server: Server) -> Connect:
    """What opens a connection as the API does."""

    async def connect() -> psycopg.AsyncConnection[TupleRow]:
        return await psycopg.AsyncConnection.connect(**login(server, API), autocommit=True)

    return connect


@asynccontextmanager
async def open_desk(server: Server, folder: Path, **others: Any) -> AsyncIterator[Desk]:
    """The API, started."""
    private = folder / "private.json"
    make_signing_keys(private, folder / "public.json")
    unlimited = {"limit_user_challenges": Quota(0, 0), "limit_channel_challenges": Quota(0, 0)}
    settings = Settings(
        database_port=server.port,
        database_user=API,
        database_password=SecretStr(server.password),
        issuer=ISSUER,
        signing_key_file=private,
        limit_user_sends=Quota(0, 0),
        limit_user_commands=Quota(0, 0),
        limit_conversation_sends=Quota(0, 0),
        **{**unlimited, **others},
    )
    app = create_app(settings)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://api") as http,
        await psycopg.AsyncConnection.connect(**login(server), autocommit=True) as database,
    ):
        desk = Desk(server, app, settings, http, database)
        await desk.notes_are_written()
        yield desk
