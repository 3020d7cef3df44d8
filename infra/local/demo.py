"""`python -m infra.local.demo` (make demo): two users chat through the running stack, and the times are shown."""

from __future__ import annotations

import asyncio
import os
import secrets
import statistics
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path

from chat4all_client import Chat, ChatError, Event
from chat4all_client.live import Live
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


async def register(chat: Chat, name: str) -> None:
    """Registers a user under a name that nobody has, and logs in."""
    await chat.register(f"{name}-{secrets.token_hex(4)}", secrets.token_urlsafe(16))


async def hear(events: Live, message_id: str) -> float:
    """When this message came (time.perf_counter)."""
    async for event in events:
        if isinstance(event, Event) and event.type == "MessageSent" and event.data["message_id"] == message_id:
            break
    return time.perf_counter()


async def chat(url: str) -> list[float]:
    """Alice and Bob talk; each message is printed when both have it. The answer: submit -> received, milliseconds."""
    times: list[float] = []
    async with AsyncExitStack() as stack:
        names = ("alice", "bob")
        people = [await stack.enter_async_context(Chat(url, within_seconds=WITHIN_SECONDS)) for _ in names]
        for person, name in zip(people, names, strict=True):
            await register(person, name)
        conversation_id = await people[0].create_conversation([people[1].user_id], title="a demonstration")
        screens = [await stack.enter_async_context(person.live(conversation_id)) for person in people]
        for number, text in enumerate(LINES):
            sender = number % 2
            started = time.perf_counter()
            accepted = await people[sender].send(conversation_id, text)
            heard = await asyncio.gather(*(hear(screen, accepted.message_id) for screen in screens))
            received = heard[1 - sender]
            times.append((received - started) * 1000)
            print(f"  seq {accepted.seq:>2}  {times[-1]:6.1f} ms  {names[sender]:>5}: {text}")
    return times


def main() -> int:
    """The command. Exit status 0, or 1 with one sentence on standard error."""
    config = StackConfig.from_environment(ROOT, os.environ).as_last_started()
    url = f"http://{HOST}:{config.ports.gateway}"
    print("Alice and Bob, each with a live stream open. Times are from submit to the other one's screen.\n")
    try:
        times = asyncio.run(asyncio.wait_for(chat(url), WITHIN_SECONDS * 2))
    except (ChatError, TimeoutError) as error:
        print(f"The stack does not answer ({error or 'time ran out'}): is it up? `make status`", file=sys.stderr)
        return 1
    print(f"\nSubmit → received: median {statistics.median(times):.1f} ms, slowest {max(times):.1f} ms.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
