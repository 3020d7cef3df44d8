"""The Python client against the real system: what it promises to whoever uses it."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from chat4all_client import Chat, Event, Gap, LoggedOut, NotAccepted, Refused
from chat4all_client import sync as synchronous
from chat4all_client.live import Transport
from infra.local.ports import Ports
from infra.local.stack import Stack
from tests.conftest import ROOT

PASSWORD = "correct horse battery"


def urls(stack: Stack) -> tuple[str, str]:
    return f"http://127.0.0.1:{stack.ports.ingest_api}", f"http://127.0.0.1:{stack.ports.delivery}"


@asynccontextmanager
async def registered(stack: Stack) -> AsyncIterator[Chat]:
    async with Chat(*urls(stack), within_seconds=60) as chat:
        await chat.register(f"user-{uuid.uuid4().hex[:12]}", PASSWORD)
        yield chat


async def messages_of(events: AsyncIterator[Event | Gap], count: int) -> list[str]:
    """The texts of the next messages."""
    texts: list[str] = []
    async with asyncio.timeout(60):
        while len(texts) < count:
            event = await anext(events)
            if isinstance(event, Event) and event.type == "MessageSent":
                texts.append(event.data["body"]["text"])
    return texts


def test_the_example_of_the_readme_runs(stack: Stack) -> None:
    found = re.search(r"(?s)```python\n(.*?)```", (ROOT / "clients" / "python" / "README.md").read_text())
    assert found is not None
    assert len([line for line in found[1].splitlines() if line]) <= 15
    documented, real = f"http://127.0.0.1:{Ports().gateway}", f"http://127.0.0.1:{stack.ports.gateway}"
    assert documented in found[1]
    example = found[1].replace(documented, real)
    done = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("2 Hungry?\n", "")


@pytest.mark.parametrize("transport", ["websocket", "sse"])
async def test_live_events_go_on_through_a_restart_of_delivery(stack: Stack, transport: Transport) -> None:
    async with registered(stack) as alice, registered(stack) as bob:
        conversation_id = await alice.create_conversation([bob.user_id])
        async with bob.live(transport=transport) as everything, bob.live(conversation_id, transport=transport) as one:
            await alice.send(conversation_id, "before")
            assert await messages_of(everything, 1) == await messages_of(one, 1) == ["before"]
            await asyncio.to_thread(stack.stop_program, "delivery")
            for number in range(20):
                await alice.send(conversation_id, f"during {number}")
            await asyncio.to_thread(stack.start_program, "delivery")
            await alice.send(conversation_id, "after")
            expected = [f"during {number}" for number in range(20)] + ["after"]
            assert await messages_of(everything, 21) == expected
            assert await messages_of(one, 21) == expected
            assert (everything.opened, everything.gaps) == (2, 0)


async def test_a_cursor_that_was_kept_goes_on_where_it_was(stack: Stack) -> None:
    async with registered(stack) as alice:
        conversation_id = await alice.create_conversation()
        async with alice.live() as events:
            await alice.send(conversation_id, "one")
            await alice.send(conversation_id, "two")
            assert await messages_of(events, 1) == ["one"]
            cursor = events.cursor
        await alice.send(conversation_id, "three")
        async with alice.live(cursor=cursor, transport="sse") as events:
            assert await messages_of(events, 2) == ["two", "three"]


async def test_a_gap_is_filled_unless_it_is_asked_for(stack: Stack) -> None:
    async with registered(stack) as alice:
        conversation_id = await alice.create_conversation()
        async with alice.live(cursor="says nothing", fills_gaps=False) as events:
            assert await anext(events) == Gap(None, None, "unknown_cursor")
        async with alice.live() as events:
            await alice.send(conversation_id, "one")
            assert await messages_of(events, 1) == ["one"]
            events._resume_from = "says nothing"
            await asyncio.to_thread(stack.stop_program, "delivery")
            await alice.send(conversation_id, "two")
            await asyncio.to_thread(stack.start_program, "delivery")
            assert await messages_of(events, 1) == ["two"]
            assert events.gaps == 1


async def test_a_message_is_sent_once_however_often_it_is_tried(stack: Stack) -> None:
    async with registered(stack) as alice:
        conversation_id = await alice.create_conversation()
        await asyncio.to_thread(stack.stop_program, "ingest-api")
        try:
            with pytest.raises(NotAccepted) as failed:
                await alice.send(conversation_id, "hello", within_seconds=0.5)
            again = alice.send(conversation_id, "hello", message_id=failed.value.message_id, within_seconds=120)
            sending = asyncio.create_task(again)
        finally:
            await asyncio.to_thread(stack.start_program, "ingest-api")
        accepted = await sending
        replayed = await alice.send(conversation_id, "hello", message_id=failed.value.message_id)
        assert (replayed.seq, replayed.was_replayed) == (accepted.seq, True)
        page = await alice.page(conversation_id, min_seq=accepted.seq)
        assert [message.text for message in page.messages] == ["hello"]


async def test_history_is_read_through_all_pages_and_changes_show(stack: Stack) -> None:
    async with registered(stack) as alice, registered(stack) as bob:
        conversation_id = await alice.create_conversation([bob.user_id], title="first")
        accepted = [await alice.send(conversation_id, f"message {number}") for number in range(210)]
        await alice.edit(conversation_id, accepted[0].message_id, "edited")
        await alice.delete(conversation_id, accepted[1].message_id)
        last_seq = await alice.set_title(conversation_id, "second")
        await bob.page(conversation_id, min_seq=last_seq)
        history = [message async for message in bob.history(conversation_id)]
        assert [message.seq for message in history] == [each.seq for each in accepted]
        assert [history[0].text, history[1].text, history[2].text] == ["edited", None, "message 2"]
        held = await bob.advance_receipt(conversation_id, read_seq=last_seq)
        assert held["read_seq"] == last_seq
        left_seq = await alice.remove_participant(conversation_id, bob.user_id)
        assert await alice.add_participant(conversation_id, bob.user_id) == left_seq + 1


async def test_a_token_that_is_no_good_is_replaced_and_a_refused_request_says_why(stack: Stack) -> None:
    async with registered(stack) as alice:
        tokens = alice._session._tokens
        assert tokens is not None
        alice._session._tokens = replace(tokens, access="nonsense")
        await alice.create_conversation()
        assert alice._session._tokens.refresh != tokens.refresh, "refresh tokens are good once"
        with pytest.raises(Refused) as refused:
            await alice.conversation(str(uuid.uuid4()))
        assert refused.value.status == 404
        with pytest.raises(Refused):
            async with alice.live(str(uuid.uuid4())):
                pass
        await alice.log_out()
        with pytest.raises(LoggedOut):
            await alice.create_conversation()


def test_the_synchronous_face_does_the_same(stack: Stack) -> None:
    with synchronous.Chat(*urls(stack)) as alice:
        user_id = alice.register(f"user-{uuid.uuid4().hex[:12]}", PASSWORD)
        conversation_id = alice.create_conversation(title="sync")
        with alice.live() as events:
            iterator: Iterator[Event | Gap] = iter(events)
            accepted = alice.send(conversation_id, "hello")
            event = next(each for each in iterator if each.type == "MessageSent")
            assert isinstance(event, Event)
            assert (event.seq, event.data["actor_id"]) == (accepted.seq, user_id)
        assert [message.text for message in alice.history(conversation_id)] == ["hello"]
        assert [line["title"] for line in alice.inbox()] == ["sync"]
        assert alice.online(conversation_id) in ([], [user_id])
