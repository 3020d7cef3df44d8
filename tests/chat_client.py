"""A small chat client for tests: registers, sends, reads history, follows live streams. It retries nothing unasked."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

PASSWORD = "correct horse battery"


@dataclass(frozen=True, slots=True)
class User:
    """A registered user and a token of theirs."""

    user_id: str
    username: str
    token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """One event of an SSE stream."""

    event: str
    id: str
    data: str


@dataclass
class ChatClient:
    """Speaks to one ingest API and one delivery. URLs without a trailing slash."""

    ingest_url: str
    delivery_url: str
    http: httpx.AsyncClient = field(default_factory=lambda: httpx.AsyncClient(timeout=30, trust_env=False))

    async def close(self) -> None:
        await self.http.aclose()

    async def register(self, name: str = "user") -> User:
        """A new user with a name that nobody has."""
        username = f"{name}-{uuid.uuid4().hex[:12]}"
        answer = await self.http.post(f"{self.ingest_url}/v1/users", json={"username": username, "password": PASSWORD})
        answer.raise_for_status()
        return User(answer.json()["user_id"], username, await self.get_token(username))

    async def get_token(self, username: str) -> str:
        answer = await self.http.post(
            f"{self.ingest_url}/oauth/token",
            data={"grant_type": "password", "username": username, "password": PASSWORD},
        )
        answer.raise_for_status()
        return str(answer.json()["access_token"])

    async def create_conversation(self, user: User, *others: User, title: str = "a conversation", **fields: Any) -> str:
        answer = await self.http.post(
            f"{self.ingest_url}/v1/conversations",
            json={"title": title, "participants": [other.user_id for other in others], **fields},
            headers=user.headers,
        )
        answer.raise_for_status()
        return str(answer.json()["conversation_id"])

    async def post_message(
        self, user: User, conversation_id: str, text: str, *, message_id: str | None = None, **fields: Any
    ) -> httpx.Response:
        """The raw answer to one attempt."""
        body: dict[str, Any] = {"body": {"type": "text", "text": text}, **fields}
        if message_id is not None:
            body["message_id"] = message_id
        return await self.http.post(
            f"{self.ingest_url}/v1/conversations/{conversation_id}/messages", json=body, headers=user.headers
        )

    async def send(self, user: User, conversation_id: str, text: str, **fields: Any) -> dict[str, Any]:
        """The accepted message. Raises httpx.HTTPStatusError when it was not accepted."""
        answer = await self.post_message(user, conversation_id, text, **fields)
        answer.raise_for_status()
        accepted: dict[str, Any] = answer.json()
        return accepted

    async def send_until_accepted(
        self, user: User, conversation_id: str, text: str, *, within_seconds: float = 60
    ) -> dict[str, Any]:
        """The accepted message, retried under one message_id for as long as the server cannot say 2xx."""
        message_id = str(uuid.uuid4())
        async with asyncio.timeout(within_seconds):
            while True:
                try:
                    answer = await self.post_message(user, conversation_id, text, message_id=message_id)
                except httpx.TransportError:
                    await asyncio.sleep(0.1)
                    continue
                if answer.status_code == 503:
                    await asyncio.sleep(0.1)
                    continue
                answer.raise_for_status()
                accepted: dict[str, Any] = answer.json()
                return accepted

    async def get(self, user: User, path: str, **parameters: Any) -> httpx.Response:
        return await self.http.get(f"{self.delivery_url}{path}", params=parameters, headers=user.headers)

    async def read_events(self, user: User, conversation_id: str) -> list[dict[str, Any]]:
        """Every log entry of the conversation, as delivery tells it, page by page."""
        events: list[dict[str, Any]] = []
        while True:
            after_seq = events[-1]["seq"] if events else 0
            answer = await self.get(user, f"/v1/conversations/{conversation_id}/events", after_seq=after_seq, limit=200)
            answer.raise_for_status()
            page = answer.json()["events"]
            if not page:
                return events
            events += page

    @asynccontextmanager
    async def stream(
        self,
        user: User,
        *,
        conversation_id: str | None = None,
        last_event_id: str | None = None,
        has_presence: bool = False,
    ) -> AsyncIterator[AsyncIterator[StreamEvent]]:
        """An open SSE stream (the server has answered when the block begins). Who comes and goes is passed over,
        unless it is asked for."""
        headers = dict(user.headers)
        if last_event_id is not None:
            headers["Last-Event-ID"] = last_event_id
        parameters = {"conversation_id": conversation_id} if conversation_id else {}
        async with self.http.stream(
            "GET",
            f"{self.delivery_url}/v1/stream",
            params=parameters,
            headers=headers,
            timeout=httpx.Timeout(30, read=60),
        ) as response:
            if response.status_code != 200:
                await response.aread()
                response.raise_for_status()
            events = parse_stream(response.aiter_lines())
            yield events if has_presence else (event async for event in events if event.event != "PresenceChanged")


async def parse_stream(lines: AsyncIterator[str]) -> AsyncIterator[StreamEvent]:
    """The events in the lines of an SSE stream (WHATWG HTML, server-sent events); comments are passed over."""
    fields: dict[str, str] = {}
    async for line in lines:
        if line:
            name, _, value = line.partition(":")
            if name:
                fields[name] = value.removeprefix(" ")
        elif "data" in fields:
            yield StreamEvent(fields.get("event", "message"), fields.get("id", ""), fields["data"])
            fields = {}
        else:
            fields = {}
