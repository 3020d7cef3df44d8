"""A real Chromium for tests, and what every page in it must be free of."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, Request, async_playwright

from infra.local.packages import install

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
]
WATCH = """
globalThis.violations = [];
document.addEventListener("securitypolicyviolation", ({violatedDirective, blockedURI}) =>
  violations.push(`${violatedDirective} ${blockedURI}`));
"""


def find_chromium() -> str:
    """Debian's Chromium, installed if it is missing. Raises StackError with the command to run if it cannot be."""
    if shutil.which("chromium") is None:
        install(("chromium",), report=print)
    return shutil.which("chromium") or "/usr/bin/chromium"


@asynccontextmanager
async def open_browser() -> AsyncIterator[Browser]:
    """A Chromium without windows."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=find_chromium(), args=ARGUMENTS)
        try:
            yield browser
        finally:
            await browser.close()


@dataclass
class Watched:
    """A context, and what its pages asked for and complained about."""

    context: BrowserContext
    origin: str
    addresses: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    async def open(self, path: str = "/") -> Page:
        """A page of the origin."""
        page = await self.context.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self._listen)
        await page.goto(self.origin + path)
        return page

    async def check(self) -> None:
        """Raises AssertionError if a page broke its policy, failed, or asked anybody but its origin."""
        for page in self.context.pages:
            assert await page.evaluate("violations") == []
        assert [each for each in self.complaints if "Content Security Policy" in each or "Error:" in each] == []
        assert self.addresses, "nothing was asked for"
        assert {urlsplit(each).netloc for each in self.addresses} == {urlsplit(self.origin).netloc}

    def note(self, request: Request) -> None:
        if not request.url.startswith("data:"):
            self.addresses.append(request.url)

    def _listen(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.complaints.append(message.text)


@asynccontextmanager
async def open_context(browser: Browser, origin: str, **options: Any) -> AsyncIterator[Watched]:
    """A browser of one person, as if on a machine of their own; it is checked at the end."""
    context = await browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
    watched = Watched(context, origin)
    context.on("request", watched.note)
    await context.add_init_script(WATCH)
    try:
        yield watched
        await watched.check()
    finally:
        await context.close()
