"""The adapter for webhooks: one signed POST per letter, to public addresses alone, following nothing."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from stream_apps.channels.addresses import CheckingResolver, Network, NotPublic, check_literal
from stream_apps.channels.model import Delivered, Letter, Outcome, Refused, Target, TryLater
from stream_apps.channels.signatures import sign

ANSWER_BYTES = 16 * 1024
CONNECTIONS = 256
LONGEST_RETRY_AFTER_SECONDS = 3600.0
NOT_PUBLIC = "The host's address is not public."


class WebhookAdapter:
    """POSTs JSON. 2xx is a delivery, 410 is for good, everything else is tried again."""

    def __init__(
        self,
        *,
        allowed: Sequence[Network] = (),
        allow_http: bool = False,
        timeout_seconds: float = 10.0,
        resolver: CheckingResolver | None = None,
        tls: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._allowed = allowed
        self._schemes = ("https", "http") if allow_http else ("https",)
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        self._resolver = resolver
        self._tls = tls
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Makes the client; it connects when it is first used."""
        connector = aiohttp.TCPConnector(
            resolver=self._resolver or CheckingResolver(self._allowed),
            use_dns_cache=False,
            limit=CONNECTIONS,
            ssl=self._tls or True,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=self._timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "Chat4All/1"},
            auto_decompress=False,
            max_line_size=4096,
            max_field_size=4096,
        )

    async def close(self) -> None:
        """Closes all connections."""
        if self._session is not None:
            await self._session.close()

    async def challenge(self, target: Target, code: str) -> Outcome:
        """POSTs the verification code."""
        return await self._post(target, f"verification_{target.channel_id}", "verification", {"code": code})

    async def deliver(self, target: Target, letter: Letter) -> Outcome:
        """POSTs the messages. The same messages have the same `webhook-id`, however often they are sent."""
        first, last = letter.messages[0].seq, letter.messages[-1].seq
        webhook_id = f"messages_{letter.conversation_id}_{first}_{last}"
        return await self._post(target, webhook_id, "messages", body_of(target, letter))

    async def _post(self, target: Target, webhook_id: str, kind: str, data: dict[str, Any]) -> Outcome:
        if self._session is None:
            raise RuntimeError("the adapter is not open")
        if urlsplit(target.address).scheme not in self._schemes:
            return TryLater("The address is not https.")
        now = int(self._clock())
        timestamp = datetime.fromtimestamp(now, UTC).isoformat().replace("+00:00", "Z")
        body = json.dumps({"type": kind, "timestamp": timestamp, "data": data}, ensure_ascii=False).encode()
        headers = {"Content-Type": "application/json", **sign(webhook_id, now, body, target.secrets)}
        try:
            check_literal(urlsplit(target.address).hostname or "", self._allowed)
            async with self._session.post(
                target.address, data=body, headers=headers, allow_redirects=False
            ) as response:
                await response.content.read(ANSWER_BYTES)
                return read_answer(response.status, response.headers.get("Retry-After"))
        except TimeoutError:
            return TryLater("It did not answer in time.")
        except NotPublic:
            return TryLater(NOT_PUBLIC)
        except aiohttp.ClientConnectorError as error:
            return TryLater(NOT_PUBLIC if isinstance(error.os_error, NotPublic) else "It cannot be reached.")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return TryLater(f"The request failed ({type(error).__name__}).")


def body_of(target: Target, letter: Letter) -> dict[str, Any]:
    """What a POST of messages says in `data`."""
    return {
        "conversation_id": letter.conversation_id,
        "title": letter.title,
        "user_id": target.user_id,
        "messages": [
            {
                "message_id": message.message_id,
                "seq": message.seq,
                "actor_id": message.actor_id,
                "actor_name": message.actor_name,
                "created_at": message.created_at,
                "body": message.body,
                "edited": message.is_edited,
                "deleted": message.is_deleted,
            }
            for message in letter.messages
        ],
    }


def read_answer(status: int, retry_after: str | None) -> Outcome:
    """What an HTTP answer means."""
    if 200 <= status < 300:
        return Delivered()
    if status == 410:
        return Refused("It answers 410: it is gone.")
    if 300 <= status < 400:
        return TryLater(f"It answers {status}, and redirects are not followed.")
    asked = None
    if retry_after is not None and retry_after.isascii() and retry_after.isdigit():
        asked = min(float(retry_after[:9]), LONGEST_RETRY_AFTER_SECONDS)
    return TryLater(f"It answers {status}.", after_seconds=asked)
