"""The web console in a real Chromium, on the real system through its gateway."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Locator, Page, ViewportSize, expect

from infra.local.stack import Stack
from stream_apps.delivery.console.assets import CONTENT_SECURITY_POLICY
from tests.browser import Watched, open_browser, open_context
from tests.chat_client import PASSWORD, ChatClient, User

SCREENSHOTS = Path(__file__).resolve().parents[2] / "build" / "screenshots"
PHONE: ViewportSize = {"width": 390, "height": 844}
MOMENTS = ["accepted", "committed", "appended", "applied", "received"]

expect.set_options(timeout=20_000)
pytestmark = pytest.mark.asyncio(loop_scope="module")  # one browser for all


@pytest.fixture
def url(stack: Stack) -> str:
    return f"http://127.0.0.1:{stack.ports.gateway}"


@pytest_asyncio.fixture(loop_scope="module")
async def chat(url: str) -> AsyncIterator[ChatClient]:
    own = ChatClient(url, url)
    yield own
    await own.close()


@dataclass
class Desk:
    """Opens the console for people, each with a browser of their own."""

    browser: Browser
    url: str
    stack: AsyncExitStack

    async def watch(self, **options: Any) -> Watched:
        return await self.stack.enter_async_context(open_context(self.browser, self.url, **options))

    async def sign_in(self, user: User, **options: Any) -> Page:
        """The console of a user who has signed in."""
        page = await (await self.watch(**options)).open()
        await page.get_by_label("Username", exact=True).fill(user.username)
        await page.get_by_label("Password", exact=True).fill(PASSWORD)
        await page.get_by_role("button", name="Sign in", exact=True).click()
        await expect(page.locator("#link")).to_have_text("Connected.")
        return page


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with open_browser() as own:
        yield own


@pytest_asyncio.fixture(loop_scope="module")
async def desk(browser: Browser, url: str) -> AsyncIterator[Desk]:
    async with AsyncExitStack() as stack:
        yield Desk(browser, url, stack)


async def open_conversation(page: Page, title: str) -> None:
    await page.get_by_role("navigation").get_by_role("button", name=re.compile(title)).click()
    await expect(page.get_by_role("heading", name=title)).to_be_visible()


async def write(page: Page, text: str) -> None:
    await page.get_by_label("Message", exact=True).fill(text)
    await page.get_by_label("Message", exact=True).press("Enter")


def message(page: Page, text: str) -> Locator:
    return page.locator("article", has=page.get_by_text(text, exact=True))


async def press(page: Page, text: str, button: str) -> None:
    """Presses a button of a message, which shows while the message is pointed at."""
    await message(page, text).locator(".text").hover()
    await message(page, text).get_by_role("button", name=button).click()


async def texts(page: Page) -> list[str]:
    return await page.locator("article .text").all_text_contents()


async def test_two_people_chat_in_two_browsers(desk: Desk, chat: ChatClient) -> None:
    bob = await chat.register("bob")
    first = await (await desk.watch()).open()
    await first.get_by_text("Register", exact=True).click()
    await first.get_by_label("Username", exact=True).fill(f"Alice-{uuid.uuid4().hex[:12]}")
    await first.get_by_label("Name that others see").fill("Alice <b>A.</b>")
    await first.get_by_label("Password", exact=True).fill(PASSWORD)
    await first.get_by_role("button", name="Register").click()
    await expect(first.locator("#me")).to_have_text("Alice <b>A.</b>")
    second = await desk.sign_in(bob)

    await first.get_by_role("button", name="New", exact=True).click()
    await first.get_by_label("Usernames of the others").fill("nobody-of-this-name")
    await first.get_by_role("button", name="Create").click()
    await expect(first.locator("#create-problem")).to_have_text("There is nobody named nobody-of-this-name.")
    await first.get_by_label("Usernames of the others").fill(bob.username)
    await first.get_by_label("Title").fill("Lunch")
    await first.get_by_role("button", name="Create").click()
    await expect(first.get_by_role("heading", name="Lunch")).to_be_visible()

    await write(first, "<img src=x onerror=alert(1)> hungry?")
    await expect(message(first, "<img src=x onerror=alert(1)> hungry?").locator(".progress")).to_have_text("Delivered")
    await expect(second.locator(".badge")).to_have_text(re.compile("^1"))
    await open_conversation(second, "Lunch")
    await expect(message(second, "<img src=x onerror=alert(1)> hungry?").locator(".author")).to_have_text(
        "Alice <b>A.</b>"
    )
    await expect(second.locator(".badge")).to_have_count(0)
    await expect(first.locator("article .progress")).to_have_text("Read")
    await expect(first.locator("#participants")).to_contain_text("(online)")

    await answer(first, second, bob)
    await come_back(first)


async def answer(first: Page, second: Page, bob: User) -> None:
    """The second one writes, replies, edits and deletes; the first one sees it."""
    await second.get_by_label("Message", exact=True).press_sequentially("ye")
    await expect(first.locator("#typing")).to_have_text(f"{bob.username} is writing …")
    await second.get_by_label("Message", exact=True).fill("")
    await press(second, "<img src=x onerror=alert(1)> hungry?", "Reply")
    await write(second, "yes!\nat noon?")
    await expect(message(first, "yes! at noon?").locator("blockquote")).to_contain_text("hungry?")

    await press(second, "yes! at noon?", "Edit")
    await write(second, "yes! at one?")
    await expect(message(first, "yes! at one?").locator("footer")).to_contain_text("edited")
    await press(second, "yes! at one?", "Delete")
    await second.get_by_role("button", name="Delete", exact=True).last.click()
    await expect(first.locator("article.deleted .text")).to_have_text("Deleted")
    await expect(second.locator("article.deleted .text")).to_have_text("Deleted")


async def come_back(first: Page) -> None:
    """A reload keeps the session; signing out leaves nothing."""
    await first.reload()
    await expect(first.locator("#link")).to_have_text("Connected.")
    await open_conversation(first, "Lunch")
    await expect(first.locator("article")).to_have_count(2)
    await first.get_by_role("button", name="Sign out").click()
    await expect(first.locator("#sign-in-problem")).to_have_text("You are signed out.")
    assert await first.evaluate("sessionStorage.length + localStorage.length") == 0


async def test_who_was_offline_sees_what_was_missed_once_and_in_order(desk: Desk, chat: ChatClient) -> None:
    alice, bob = await chat.register("alice"), await chat.register("bob")
    conversation_id = await chat.create_conversation(alice, bob, title="Away")
    await chat.send(alice, conversation_id, "before")
    page = await desk.sign_in(bob)
    await open_conversation(page, "Away")
    await expect(page.locator("article")).to_have_count(1)

    await page.context.set_offline(True)
    await expect(page.locator("#link")).to_have_text("You are offline.")
    await write(page, "written offline")
    await expect(message(page, "written offline")).to_contain_text("Waiting to be sent")
    missed = [f"missed {number}" for number in range(50)]
    for text in missed:
        await chat.send(alice, conversation_id, text)
    assert await texts(page) == ["before", "written offline"]
    await page.context.set_offline(False)

    await expect(page.locator("article")).to_have_count(52)
    await expect(message(page, "written offline").locator(".progress")).to_be_visible()
    shown = await texts(page)
    assert sorted(shown) == sorted(["before", *missed, "written offline"])
    assert [text for text in shown if text.startswith("missed")] == missed
    seqs = [int(await each.get_attribute("data-seq") or 0) for each in await page.locator("article").all()]
    assert seqs == sorted(set(seqs))
    path = f"/v1/conversations/{conversation_id}/messages"
    stored = (await chat.get(bob, path, min_seq=seqs[-1], limit=200)).json()["messages"]
    assert shown == [each["body"]["text"] for each in stored]


async def test_the_inside_view_tells_a_messages_way(desk: Desk, chat: ChatClient) -> None:
    alice, bob = await chat.register("alice"), await chat.register("bob")
    conversation_id = await chat.create_conversation(alice, bob, title="Inside")
    page = await desk.sign_in(bob)
    await open_conversation(page, "Inside")
    await page.get_by_role("button", name="Inside view").click()
    await expect(page.locator("#parts li")).to_have_count(10)
    await expect(page.locator("#parts li[data-state=down]")).to_have_count(0)
    for number in range(20):
        await chat.send(alice, conversation_id, f"number {number}")
    await expect(page.locator("[data-figure=messages] dd")).to_have_text("20")
    figures = [await page.locator(f"[data-figure={name}] dd").text_content() for name in ("p50", "p95", "p99")]
    assert all(re.fullmatch(r"\d+(\.\d+)? m?s", figure or "") for figure in figures), figures

    await press(page, "number 19", "Inside")
    rows = page.locator("#waterfall tbody tr")
    await expect(rows).to_have_count(5)
    found = [[await row.get_attribute(f"data-{name}") for name in ("moment", "at", "took")] for row in await rows.all()]
    assert [moment for moment, _, _ in found] == MOMENTS
    at = [float(each) for _, each, _ in found if each is not None]
    took = [float(each) for _, _, each in found if each is not None]
    assert len(at) == len(took) == 5, "every moment of a message that came live is known"
    assert at == sorted(at)
    assert at[0] == 0
    assert all(each >= 0 for each in took)
    assert sum(took) == pytest.approx(at[-1])
    assert 0 < at[-1] < 30_000
    await page.screenshot(path=SCREENSHOTS / "inside-wide.png")


async def test_everything_from_signing_in_to_a_sent_message_goes_by_keyboard(desk: Desk, chat: ChatClient) -> None:
    alice, bob = await chat.register("alice"), await chat.register("bob")
    page = await (await desk.watch()).open()
    keys = page.keyboard

    async def go_to(locator: Locator) -> None:
        for _ in range(25):
            if await locator.evaluate("each => each === document.activeElement"):
                outline = await locator.evaluate("each => getComputedStyle(each).outlineStyle")
                assert outline != "none", "the focus cannot be seen"
                return
            await keys.press("Tab")
        raise AssertionError("not reached by Tab")

    await go_to(page.get_by_label("Username", exact=True))
    await keys.type(alice.username)
    await go_to(page.get_by_label("Password", exact=True))
    await keys.type(PASSWORD)
    await keys.press("Enter")
    await expect(page.locator("#link")).to_have_text("Connected.")
    await go_to(page.get_by_role("button", name="New", exact=True))
    await keys.press("Enter")
    await go_to(page.get_by_label("Usernames of the others"))
    await keys.type(bob.username)
    await keys.press("Enter")
    await expect(page.get_by_label("Message", exact=True)).to_be_focused()
    await keys.type("typed")
    await keys.press("Enter")
    await expect(message(page, "typed").locator(".progress")).to_have_text("Sent")
    await walk(page, go_to)


async def walk(page: Page, go_to: Callable[[Locator], Awaitable[None]]) -> None:
    """From the field to a message, its buttons, the inside view, and back."""
    keys = page.keyboard
    await keys.press("ArrowUp")
    await expect(message(page, "typed")).to_be_focused()
    await go_to(message(page, "typed").get_by_role("button", name="Edit"))
    await keys.press("Enter")
    await expect(page.get_by_label("Message", exact=True)).to_be_focused()
    await keys.press("End")
    await keys.type(" by keys")
    await keys.press("Enter")
    await expect(message(page, "typed by keys")).to_be_visible()
    await keys.press("ArrowUp")
    await keys.press("Enter")
    await expect(page.locator("#inside-heading")).to_be_focused()
    await expect(page.locator("#waterfall tbody tr")).to_have_count(5)
    await keys.press("Escape")
    await expect(message(page, "typed by keys")).to_be_focused()
    await keys.press("Escape")
    await expect(page.get_by_label("Message", exact=True)).to_be_focused()


async def find_barriers(page: Page) -> list[tuple[str, list[str]]]:
    """What axe-core finds that is serious or critical."""
    results = await Axe().run(page)
    return [
        (violation["id"], [node["html"][:200] for node in violation["nodes"]])
        for violation in results.response["violations"]
        if violation["impact"] in ("serious", "critical")
    ]


async def look(page: Page, name: str, *schemes: Literal["light", "dark"]) -> None:
    """Takes a screenshot in each of the schemes. Raises AssertionError for a barrier."""
    for scheme in schemes:
        await page.emulate_media(color_scheme=scheme)
        assert await find_barriers(page) == [], (name, scheme)
        await page.screenshot(path=SCREENSHOTS / f"{name}-{scheme}.png")


async def furnish(chat: ChatClient, alice: User, bob: User) -> None:
    """Two conversations with everything in them that looks different, as bob's tables will show them."""
    garden = await chat.create_conversation(alice, bob, title="Garden")
    plans = await chat.create_conversation(alice, bob, title="Plans for the summer")
    sent = await chat.send(alice, plans, "Shall we go to the sea this year? The one with the long beach.")
    await chat.send(bob, plans, "Yes, in July.", reply_to=sent["message_id"])
    gone = await chat.send(alice, plans, "a mistake")
    path = f"{chat.ingest_url}/v1/conversations/{plans}/messages"
    (await chat.http.delete(f"{path}/{gone['message_id']}", headers=alice.headers)).raise_for_status()
    edit = {"body": {"type": "text", "text": "Shall we go to the sea this year?"}}
    (await chat.http.patch(f"{path}/{sent['message_id']}", json=edit, headers=alice.headers)).raise_for_status()
    await chat.send(alice, garden, "The tomatoes are ripe.")


async def test_axe_finds_no_barrier(desk: Desk, chat: ChatClient) -> None:
    alice, bob = await chat.register("alice"), await chat.register("bob")
    await furnish(chat, alice, bob)
    await look(await (await desk.watch()).open(), "sign-in", "light", "dark")
    page = await desk.sign_in(bob)
    await open_conversation(page, "Plans for the summer")
    await expect(page.locator("article.deleted")).to_have_count(1)
    await expect(message(page, "Shall we go to the sea this year?").locator(".mark")).to_have_text("edited")
    await message(page, "Yes, in July.").locator(".text").hover()
    await look(page, "conversation", "light", "dark")
    await press(page, "Yes, in July.", "Inside")
    await expect(page.locator("#waterfall tbody tr")).to_have_count(5)
    await expect(page.locator("#parts li")).to_have_count(10)
    await look(page, "inside", "light", "dark")
    await page.keyboard.press("Escape")
    await page.get_by_role("button", name="New", exact=True).click()
    await look(page, "new", "light", "dark")
    await page.get_by_role("button", name="Cancel").click()

    await page.set_viewport_size(PHONE)
    await look(page, "phone-conversation", "light")
    await page.get_by_role("button", name="Inside view").click()
    await look(page, "phone-inside", "light")
    await page.get_by_role("button", name="Close").click()
    await page.get_by_role("button", name="Back").click()
    await look(page, "phone-list", "light")
    assert await page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


async def test_the_page_is_bound_to_its_origin_and_asked_for_once(url: str) -> None:
    async with httpx.AsyncClient(base_url=url, trust_env=False) as http:
        page = await http.get("/")
        assert page.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
        assert "unsafe" not in CONTENT_SECURITY_POLICY
        named = re.findall(r'(?:src|href)="(/[^"]+)"', page.text)
        assert {"/console/main.js", "/console/console.css"} <= set(named)
        for path in ("/", *named):
            found = await http.get(path)
            assert found.status_code == 200, path
            known = await http.get(path, headers={"If-None-Match": found.headers["etag"]})
            assert (known.status_code, known.content) == (304, b""), path
        missing = await http.get("/console/secret.txt")
        assert (missing.status_code, missing.json()["title"]) == (404, "File not found")
        parts = await asyncio.gather(*(http.get("/v1/parts") for _ in range(2)))
        assert [each.status_code for each in parts] == [401, 401]
