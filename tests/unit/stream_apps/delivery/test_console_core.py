"""The console's pure modules, run where they will run: in Chromium. Nothing is served; the files are handed to it."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Page, Route

from stream_apps.delivery.console.assets import read_assets
from tests.browser import open_browser

ALICE, BOB = "alice", "bob"
LOAD = "async () => Object.assign(globalThis, await import('/console/state.js'), await import('/console/hops.js'))"
RUN = "actions => actions.reduce(reduce, reduce(initialState(), {type: 'signedIn', user: {user_id: 'bob'}}))"


pytestmark = pytest.mark.asyncio(loop_scope="module")  # one browser for all


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def page() -> AsyncIterator[Page]:
    """An empty page with the functions of state.js and hops.js as globals."""
    assets = read_assets()

    async def answer(route: Route) -> None:
        asset = assets.get(route.request.url.rpartition("/")[2])
        if asset is None:
            await route.fulfill(body="<!doctype html>", content_type="text/html")
        else:
            await route.fulfill(body=asset.body, content_type=asset.media_type)

    async with open_browser() as browser:
        own = await browser.new_page()
        await own.route("**/*", answer)
        await own.goto("http://console.test/")
        await own.evaluate(LOAD)
        yield own


def entry(seq: int, **fields: Any) -> dict[str, Any]:
    event = {
        "type": "MessageSent",
        "conversation_id": "c",
        "seq": seq,
        "created_at": f"2026-01-02T03:04:{seq:02}.000000Z",
    }
    sent = {"message_id": f"m{seq}", "actor_id": ALICE, "body": {"type": "text", "text": str(seq)}}
    return {**event, **sent, **fields}


def told(*events: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"type": "eventTold", "event": event, "received_at": 1000} for event in events]


async def shown(page: Page, actions: list[dict[str, Any]]) -> dict[str, Any]:
    """What the conversation shows after the actions."""
    state = await page.evaluate(RUN, actions)
    held: dict[str, Any] = state["conversations"]["c"]
    messages = await page.evaluate("held => timelineOf(held)", held)
    return {
        "messages": [(each["seq"], each["body"] and each["body"]["text"], each["edited"]) for each in messages],
        "unread": held["unread_count"],
        "outgoing": held["outgoing"],
        "last": held["last_message"] and held["last_message"]["message_id"],
        "state": held,
    }


async def test_a_timeline_is_the_same_whatever_comes_twice_and_in_whatever_order(page: Page) -> None:
    edit = entry(4, type="MessageEdited", message_id="m2", body={"type": "text", "text": "two"})
    later_edit = entry(5, type="MessageEdited", message_id="m2", body={"type": "text", "text": "TWO"})
    removal = entry(6, type="MessageDeleted", message_id="m3")
    events = [entry(2), entry(3), edit, later_edit, removal, entry(7)]
    old_page = {"messages": [entry(2), entry(3)], "prev": None, "next": None}
    as_page = [{"type": "pageRead", "conversation_id": "c", "page": old_page, "isOlder": False}]
    expected = [(2, "TWO", True), (3, None, False), (7, "7", False)]
    assert (await shown(page, told(*events)))["messages"] == expected
    chance = random.Random(7)
    for _ in range(30):
        actions = told(*events, *chance.sample(events, 3)) + as_page
        chance.shuffle(actions)
        found = await shown(page, actions)
        assert (found["messages"], found["last"]) == (expected, "m7"), actions


async def test_a_message_is_unread_once_and_one_of_ones_own_never(page: Page) -> None:
    found = await shown(page, told(entry(2), entry(2), entry(3, actor_id=BOB), entry(4), entry(4)))
    assert found["unread"] == 2
    receipt = {"type": "ReceiptAdvanced", "conversation_id": "c", "user_id": BOB, "delivered_seq": 4, "read_seq": 4}
    older = {**receipt, "read_seq": 2, "delivered_seq": 2}
    found = await shown(page, told(entry(2), entry(4), receipt, older))
    assert (found["unread"], found["state"]["receipts"][BOB]) == (0, {"delivered_seq": 4, "read_seq": 4})
    line = {"conversation_id": "c", "title": "t", "seq": 3, "left_seq": None, "unread_count": 9, "last_message": None}
    found = await shown(page, [*told(entry(4)), {"type": "inboxRead", "lines": [line]}])
    assert found["unread"] == 1, "a line that is older than what was told says nothing new"


async def test_an_echo_is_settled_by_its_id_whether_the_answer_or_the_event_comes_first(page: Page) -> None:
    echo = {"message_id": "m2", "text": "2", "reply_to": None, "state": "waiting", "problem": None}
    sending = [{"type": "outgoingAdded", "conversation_id": "c", "message": echo}]
    answer = [{"type": "accepted", "conversation_id": "c", "message": entry(2, actor_id=BOB)}]
    event = told(entry(2, actor_id=BOB))
    assert (await shown(page, sending))["outgoing"] == [echo]
    for settling in (answer, event, answer + event, event + answer):
        found = await shown(page, sending + settling)
        assert (found["messages"], found["outgoing"]) == ([(2, "2", False)], [])


async def test_a_message_is_read_when_everybody_else_has_read_it(page: Page) -> None:
    people = [{"user_id": each, "role": "member", "joined_seq": 1, "left_seq": None} for each in (BOB, ALICE, "carol")]
    progress = "([held, message]) => progressOf({}, held, message)"
    sent = {"actor_id": BOB, "seq": 5}

    async def judge(**receipts: tuple[int, int]) -> str:
        held = {
            "participants": people,
            "receipts": {each: {"delivered_seq": d, "read_seq": r} for each, (d, r) in receipts.items()},
        }
        return str(await page.evaluate(progress, [held, sent]))

    assert await judge() == "sent"
    assert await judge(alice=(5, 5)) == "sent"
    assert await judge(alice=(5, 5), carol=(6, 4)) == "delivered"
    assert await judge(alice=(5, 5), carol=(6, 6)) == "read"


async def test_hops_are_never_negative_and_add_up(page: Page) -> None:
    hops = {
        "accepted_at": "2026-01-02T03:04:05.678901Z",
        "committed_at": "2026-01-02T03:04:05.680112Z",
        "appended_at": "2026-01-02T03:04:05.680000Z",
        "applied_at": "2026-01-02T03:04:05.683204Z",
    }
    received = await page.evaluate("text => parseTime(text)", "2026-01-02T03:04:05.680204Z")
    found = await page.evaluate("([hops, received]) => waterfall(hops, received, 5)", [hops, received])
    rows = {row["name"]: (round(row["at"], 2), round(row["took"], 2)) for row in found["rows"]}
    assert rows == {
        "accepted": (0, 0),
        "committed": (1.21, 1.21),
        "appended": (1.21, 0),
        "applied": (4.3, 3.09),
        "received": (6.3, 2.0),
    }
    assert found["total"] == pytest.approx(6.3, abs=0.01)
    unknown = await page.evaluate("hops => waterfall(hops, null, 0)", {**hops, "appended_at": None})
    assert [row["at"] is None for row in unknown["rows"]] == [False, False, True, False, True]
    assert sum(row["took"] or 0 for row in unknown["rows"]) == pytest.approx(unknown["total"])


async def test_percentiles_and_the_clock(page: Page) -> None:
    ranks = "([samples, shares]) => shares.map(share => percentile(samples, share))"
    assert await page.evaluate(ranks, [list(range(1, 101)), [0.5, 0.95, 0.99]]) == [50, 95, 99]
    assert await page.evaluate(ranks, [[7], [0.5, 0.99]]) == [7, 7]
    assert await page.evaluate(ranks, [[], [0.5]]) == [None]
    slow = {"asked_at": 0, "answered_at": 190, "came_at": 200}
    quick = {"asked_at": 1000, "answered_at": 1052, "came_at": 1004}
    offset = "([one, two]) => betterOffset(betterOffset(null, one), two)"
    assert await page.evaluate(offset, [slow, quick]) == {"offset": 50, "error": 2}
    assert await page.evaluate(offset, [quick, slow]) == {"offset": 50, "error": 2}
