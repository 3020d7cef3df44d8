"""`python -m infra.local.demo` (make demo): two users chat through the running stack, and the times are shown."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

from infra.local.config import StackConfig
from infra.local.ports import HOST

LINES = (
    "Hello Bob! Is this thing on?",
    "Hi Alice, loud and clear.",
    "Every message has its place: look at the seq.",
    "And it went through Postgres, Debezium, Kafka, Faust and Redis to get here.",
    "In how many milliseconds?",
    "See for yourself.",
    "Nothing lost, nothing out of order.",
    "Bye!",
)
WITHIN_SECONDS = 30
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Person:
    """A registered user and a token of theirs."""

    name: str
    user_id: str
    headers: dict[str, str]


async def register(http: httpx.AsyncClient, ingest: str, name: str) -> Person:
    """Registers a user under a name that nobody has, and logs in."""
    login = {"username": f"{name}-{secrets.token_hex(4)}", "password": secrets.token_urlsafe(16)}
    user = (await http.post(f"{ingest}/v1/users", json=login)).raise_for_status().json()
    answer = await http.post(f"{ingest}/oauth/token", data={"grant_type": "password", **login})
    token = answer.raise_for_status().json()["access_token"]
    return Person(name, user["user_id"], {"Authorization": f"Bearer {token}"})


async def listen(
    http: httpx.AsyncClient, delivery: str, person: Person, ready: asyncio.Event, received: dict[str, float]
) -> None:
    """Follows the person's live stream; notes for each message id when it came (time.perf_counter)."""
    async with http.stream("GET", f"{delivery}/v1/stream", headers=person.headers, timeout=None) as stream:
        stream.raise_for_status()
        async for line in stream.aiter_lines():
            ready.set()
            if line.startswith("data: ") and '"message_id"' in line:
                received[json.loads(line.removeprefix("data: "))["message_id"]] = time.perf_counter()


async def chat(ingest: str, delivery: str) -> list[float]:
    """Alice and Bob talk; each message is printed when both have it. The answer: submit -> received, milliseconds."""
    times: list[float] = []
    async with httpx.AsyncClient(timeout=WITHIN_SECONDS, trust_env=False) as http:
        people = [await register(http, ingest, name) for name in ("alice", "bob")]
        created = await http.post(
            f"{ingest}/v1/conversations",
            json={"title": "a demonstration", "participants": [people[1].user_id]},
            headers=people[0].headers,
        )
        conversation_id = created.raise_for_status().json()["conversation_id"]
        seen: list[dict[str, float]] = [{}, {}]
        ready = [asyncio.Event(), asyncio.Event()]
        listeners = [
            asyncio.create_task(listen(http, delivery, person, ready[n], seen[n])) for n, person in enumerate(people)
        ]
        try:
            await asyncio.gather(*(event.wait() for event in ready))
            for number, text in enumerate(LINES):
                sender = people[number % 2]
                started = time.perf_counter()
                answer = await http.post(
                    f"{ingest}/v1/conversations/{conversation_id}/messages",
                    json={"body": {"type": "text", "text": text}},
                    headers=sender.headers,
                )
                accepted = answer.raise_for_status().json()
                while not all(accepted["message_id"] in of_one for of_one in seen):  # noqa: ASYNC110 - a demo
                    await asyncio.sleep(0.001)
                milliseconds = (seen[1 - number % 2][accepted["message_id"]] - started) * 1000
                times.append(milliseconds)
                print(f"  seq {accepted['seq']:>2}  {milliseconds:6.1f} ms  {sender.name:>5}: {text}")
        finally:
            for listener in listeners:
                listener.cancel()
            await asyncio.gather(*listeners, return_exceptions=True)
    return times


def main() -> int:
    """The command. Exit status 0, or 1 with one sentence on standard error."""
    config = StackConfig.from_environment(ROOT, os.environ).as_last_started()
    ingest, delivery = (f"http://{HOST}:{port}" for port in (config.ports.ingest_api, config.ports.delivery))
    print("Alice and Bob, each with a live stream open. Times are from submit to the other one's screen.\n")
    try:
        times = asyncio.run(asyncio.wait_for(chat(ingest, delivery), WITHIN_SECONDS * 2))
    except (httpx.HTTPError, TimeoutError) as error:
        print(f"The stack does not answer ({error or 'time ran out'}): is it up? `make status`", file=sys.stderr)
        return 1
    print(f"\nSubmit → received: median {statistics.median(times):.1f} ms, slowest {max(times):.1f} ms.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
