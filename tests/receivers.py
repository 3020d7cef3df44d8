"""Receivers for tests: a web server that takes webhooks, and a mail server; real ones, on loopback."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from functools import cached_property
from typing import Any

from aiohttp import web
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import Envelope, Session

from schemas.channels import SECRET_PREFIX


@dataclass(frozen=True)
class Post:
    """One POST that came."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @cached_property
    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found

    def is_signed_by(self, secret: str) -> bool:
        """Whether one of its signatures is made by this secret (as a user was shown it)."""
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
        content = f"{self.headers['webhook-id']}.{self.headers['webhook-timestamp']}.".encode() + self.body
        expected = "v1," + base64.b64encode(hmac.digest(key, content, "sha256")).decode()
        return expected in self.headers["webhook-signature"].split()


Respond = Callable[[Post], Awaitable[int]]


async def say_yes(_: Post) -> int:
    return 200


@dataclass
class WebhookReceiver:
    """Takes POSTs. `respond` decides the status; what was answered 2xx is in `taken`, all is in `came`."""

    respond: Respond = say_yes
    host: str = "127.0.0.1"
    scheme: str = "http"
    port: int = 0
    came: list[Post] = field(default_factory=list)
    taken: list[Post] = field(default_factory=list)

    def url(self, path: str = "/hook") -> str:
        return f"{self.scheme}://{self.host}:{self.port}{path}"

    async def code(self) -> str:
        """The verification code that came last."""
        post = await self.wait_for(lambda post: post.document["type"] == "verification")
        return str(post.document["data"]["code"])

    def messages(self, path: str = "/hook") -> list[dict[str, Any]]:
        """All messages that were taken, in the order in which they came, repeated ones too."""
        return [
            {"conversation_id": post.document["data"]["conversation_id"], **message}
            for post in self.taken
            if post.path == path and post.document["type"] == "messages"
            for message in post.document["data"]["messages"]
        ]

    async def wait_for(self, matches: Callable[[Post], bool], *, within_seconds: float = 60) -> Post:
        """The latest matching POST that was taken."""
        async with asyncio.timeout(within_seconds):
            while True:
                for post in reversed(self.taken):
                    if matches(post):
                        return post
                await asyncio.sleep(0.02)

    async def wait_for_messages(self, count: int, path: str = "/hook", *, within_seconds: float = 60) -> None:
        """Returns when so many different messages were taken."""
        async with asyncio.timeout(within_seconds):
            while len({message["message_id"] for message in self.messages(path)}) < count:
                await asyncio.sleep(0.05)

    async def _handle(self, request: web.Request) -> web.Response:
        post = Post(
            request.path, {name.lower(): value for name, value in request.headers.items()}, await request.read()
        )
        self.came.append(post)
        status = await self.respond(post)
        if 200 <= status < 300:
            self.taken.append(post)
        headers = {"Location": self.url("/elsewhere")} if 300 <= status < 400 else {}
        return web.Response(status=status, headers=headers)


@asynccontextmanager
async def receive_webhooks(
    respond: Respond = say_yes, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncIterator[WebhookReceiver]:
    """A running receiver."""
    receiver = WebhookReceiver(respond, host=f"[{host}]" if ":" in host else host)
    app = web.Application(client_max_size=2**20)
    app.router.add_post("/{path:.*}", receiver._handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, host, 0, ssl_context=tls)
    await site.start()
    receiver.port = runner.addresses[0][1]
    receiver.scheme = "https" if tls else "http"
    try:
        yield receiver
    finally:
        await runner.cleanup()


@dataclass
class MailServer:
    """Takes mail. Recipients in `unknown` have no mailbox."""

    port: int
    mails: list[EmailMessage] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, _server: Any, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        if address in self.unknown:
            return "550 5.1.1 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: Any, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        content = envelope.content
        assert isinstance(content, bytes)
        mail = message_from_bytes(content, policy=policy.default)
        assert isinstance(mail, EmailMessage)
        self.mails.append(mail)
        return "250 OK"

    async def wait_for(self, address: str, words: str, *, within_seconds: float = 60) -> EmailMessage:
        """A mail to this address that has these words in it."""
        async with asyncio.timeout(within_seconds):
            while True:
                for mail in self.mails:
                    if mail["To"] == address and words in mail.get_content():
                        return mail
                await asyncio.sleep(0.05)


@asynccontextmanager
async def receive_mail(port: int, **arguments: Any) -> AsyncIterator[MailServer]:
    """A running mail server."""
    server = MailServer(port)
    controller = Controller(server, hostname="127.0.0.1", port=port, **arguments)
    await asyncio.to_thread(controller.start)
    try:
        yield server
    finally:
        await asyncio.to_thread(controller.stop)
