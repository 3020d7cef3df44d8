"""Users as they are: they write now and then, read what was written, keep a live stream open, and lose it sometimes.

`make load` runs it against the system that `make up` started; CHAT4ALL_INGEST_URL and CHAT4ALL_DELIVERY_URL name
another one. Locust's closed loop waits for answers before it goes on: for latencies without that flaw use `make bench`.
"""

from __future__ import annotations

import json
import os
import random
import time
import uuid
from contextlib import closing
from typing import Any

import gevent
from gevent.event import Event
from locust import HttpUser, between, events, task

INGEST = os.environ.get("CHAT4ALL_INGEST_URL", "http://127.0.0.1:8000")
DELIVERY = os.environ.get("CHAT4ALL_DELIVERY_URL", "http://127.0.0.1:8001")
PASSWORD = "correct horse battery"
STREAM_SECONDS = (4.0, 12.0)
"""How long a user's connection holds before it is lost."""
SENT_AT = "sent at "
READ_TIMEOUT_SECONDS = 20


class ChatUser(HttpUser):
    """Registers, makes a conversation, listens to it, and then does what people do."""

    host = INGEST
    wait_time = between(0.5, 2.0)

    def on_start(self) -> None:
        """A new user with a conversation and an open stream."""
        username = f"load-{uuid.uuid4().hex[:12]}"
        self.client.post(f"{INGEST}/v1/users", json={"username": username, "password": PASSWORD})
        answer = self.client.post(
            f"{INGEST}/oauth/token", data={"grant_type": "password", "username": username, "password": PASSWORD}
        )
        self.client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        made = self.client.post(f"{INGEST}/v1/conversations", json={"title": "load", "participants": []})
        self.conversation_id: str = made.json()["conversation_id"]
        self.last_seq: int = made.json()["seq"]
        self.cursor: str | None = None
        self.is_listening = Event()
        self.listener = gevent.spawn(self.keep_listening)
        self.is_listening.wait(READ_TIMEOUT_SECONDS)

    def on_stop(self) -> None:
        """The stream ends with its user."""
        self.listener.kill()

    @task(5)
    def send(self) -> None:
        """One message, which says when it was sent."""
        self.client.post(
            f"{INGEST}/v1/conversations/{self.conversation_id}/messages",
            json={"body": {"type": "text", "text": f"{SENT_AT}{time.time():.6f} " + "x" * 120}},
            name="/v1/conversations/{id}/messages",
        )

    @task(3)
    def read_inbox(self) -> None:
        """What the first page of an app shows."""
        self.client.get(f"{DELIVERY}/v1/conversations", name="/v1/conversations")

    @task(2)
    def read_history(self) -> None:
        """The newest page of the conversation."""
        self.client.get(
            f"{DELIVERY}/v1/conversations/{self.conversation_id}/messages?limit=50",
            name="/v1/conversations/{id}/messages?limit=50",
        )

    @task(1)
    def tell_how_far(self) -> None:
        """A receipt, up to what the stream has shown."""
        self.client.put(
            f"{INGEST}/v1/conversations/{self.conversation_id}/receipt",
            json={"delivered_seq": self.last_seq, "read_seq": self.last_seq},
            name="/v1/conversations/{id}/receipt",
        )

    def keep_listening(self) -> None:
        """Opens a stream, loses it, and resumes where it was, for as long as the user lives."""
        while True:
            self.listen(random.uniform(*STREAM_SECONDS))

    def listen(self, seconds: float) -> None:
        """One connection. Each message is reported as a `live` request that took from its sending to its arrival; each
        seq that does not follow on the one before is a failure."""
        headers = {"Last-Event-ID": self.cursor} if self.cursor else {}
        end = time.monotonic() + seconds
        answer = self.client.get(
            f"{DELIVERY}/v1/stream", headers=headers, stream=True, name="/v1/stream", timeout=READ_TIMEOUT_SECONDS
        )
        with closing(answer):
            event: dict[str, str] = {}
            for line in answer.iter_lines(chunk_size=1, decode_unicode=True):
                if line:
                    key, _, value = line.partition(": ")
                    event[key] = value
                    continue
                self.take(event)
                event = {}
                if time.monotonic() > end:
                    return

    def take(self, event: dict[str, str]) -> None:
        """What one event of the stream tells."""
        self.cursor = event.get("id", self.cursor)
        if event.get("event") == "ready":
            self.is_listening.set()
        if event.get("event") == "gap":
            report("gap", 0, failure="continuity could not be proven")
        if event.get("event") != "MessageSent":
            return
        message: dict[str, Any] = json.loads(event["data"])
        is_next = message["seq"] == self.last_seq + 1
        sent_at = float(message["body"]["text"].removeprefix(SENT_AT).split(" ")[0])
        report(
            "message",
            1000 * (time.time() - sent_at),
            failure=None if is_next else f"seq {message['seq']} follows on {self.last_seq}",
        )
        self.last_seq = message["seq"]


def report(name: str, milliseconds: float, *, failure: str | None = None) -> None:
    """A row of Locust's table that is no HTTP request."""
    events.request.fire(
        request_type="live",
        name=name,
        response_time=milliseconds,
        response_length=0,
        exception=AssertionError(failure) if failure else None,
        context={},
    )
