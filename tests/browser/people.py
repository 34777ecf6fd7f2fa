"""People in front of a browser: what they do on the forum's pages, and what they see there."""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from playwright.async_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Locator,
    Page,
    ViewportSize,
    expect,
)

from tests.acceptance.helpers import Site
from tests.installation import Running

COOKIE: Final = "afterwrite_session"
DESK: Final = {"width": 900, "height": 900}
PHONE: Final[ViewportSize] = {"width": 360, "height": 740}
SOON_MS: Final = 10_000


@dataclass
class Person:
    """Somebody with a window of his own. What went wrong in it is in `troubles`."""

    name: str
    page: Page
    context: BrowserContext
    url: str
    troubles: list[str] = field(default_factory=list)

    def watch(self) -> None:
        """Note whatever a page of ours must never do."""
        self.page.on("pageerror", lambda error: self.troubles.append(f"error: {error}"))
        self.page.on("console", self._console)
        self.page.on("dialog", lambda dialog: self.troubles.append(f"dialog: {dialog.message}"))

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.troubles.append(f"console: {message.text}")

    async def go(self, path: str) -> None:
        await self.page.goto(self.url + path)

    async def new_topic(self, title: str, body: str) -> uuid.UUID:
        """Write a topic; returns its id, with the page of it open."""
        await self.go("/topics/new")
        await self.page.get_by_label("Title").fill(title)
        await self.page.get_by_label("First post").fill(body)
        await self.page.get_by_role("button", name="Post topic").click()
        await expect(self.post(body)).to_be_visible()
        return uuid.UUID(self.page.url.partition("/topics/")[2][:36])

    async def write(self, body: str) -> None:
        """Fill the composer and send it."""
        await self.page.get_by_label("Your reply").fill(body)
        await self.page.get_by_role("button", name="Post reply").click()

    async def reply(self, body: str) -> Locator:
        """Write, and wait until it is there."""
        await self.write(body)
        post = self.post(body)
        await expect(post).to_be_visible(timeout=SOON_MS)
        return post

    def post(self, text: str) -> Locator:
        """The post with this text in it."""
        return self.page.get_by_role("article").filter(has_text=text)

    def pill(self, text: str) -> Locator:
        return self.post(text).locator(".pill")

    async def texts(self) -> list[str]:
        """The texts of all posts on the page, in their order."""
        return await self.page.locator("article .text").all_inner_texts()

    async def connected(self) -> None:
        """Wait until the page hears what becomes of its author's changes."""
        await expect(self.page.locator("html[data-live]")).to_be_attached()


@dataclass
class Town:
    """A site with its forum, and the people in it. `site` is for what is done by the JSON API."""

    site: Site
    browser: Browser
    url: str
    people: list[Person] = field(default_factory=list)

    @property
    def writer(self) -> Running:
        return self.site.installation.processes["writer"]

    async def person(
        self,
        name: str,
        size: Any = DESK,
        setup: Callable[[BrowserContext], Any] | None = None,
        roles: Sequence[str] = (),
        **options: Any,
    ) -> Person:
        """Somebody who is signed in. `options` are those of a browser context."""
        context = await self.browser.new_context(viewport=size, **options)
        context.set_default_timeout(SOON_MS)
        token = self.site.installation.token(name, *roles)
        await context.add_cookies([{"name": COOKIE, "value": token, "url": self.url}])
        made = Person(name, await context.new_page(), context, self.url)
        made.watch()
        self.people.append(made)
        return made

    async def moderate(self, topic: uuid.UUID, **changes: object) -> None:
        """A moderator changes a topic, by the JSON API."""
        client = self.site.installation.client("Mo", "moderator")
        async with client:
            headers = {"content-type": "application/merge-patch+json", "if-match": "*"}
            answer = await client.patch(f"/v1/topics/{topic}", json=changes, headers=headers)
            assert answer.status_code == 202, answer.text

    async def leave(self) -> list[str]:
        """Close all windows; returns what went wrong in them."""
        troubles = [f"{p.name}: {t}" for p in self.people for t in p.troubles]
        for person in self.people:
            await person.context.close()
        self.people.clear()
        return troubles


LOSSES: Final = ("net::ERR_", "the server responded with a status of", "Failed to fetch")
"""What a browser notes of servers that are down; only tests that take one down may have it."""
