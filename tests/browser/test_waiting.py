"""What is not saved yet, and what cannot be saved: how it looks to its author, and to others."""

import signal
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from playwright.async_api import Locator, Page, expect

from tests.browser.people import Person, Town

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

BOXES = """() => Object.fromEntries([...document.querySelectorAll("article, #composer, #topic-head")]
    .map(e => { const b = e.getBoundingClientRect(); return [e.id, [b.x, b.y, b.width, b.height]]; }))"""


@asynccontextmanager
async def writer_paused(town: Town) -> AsyncIterator[None]:
    town.writer.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        town.writer.signal(signal.SIGCONT)


async def _boxes(page: Page) -> Any:
    return await page.evaluate(BOXES)


async def _visible(locator: Locator) -> bool:
    """Whether it is to be seen, as the style sheet has it at this moment."""
    return bool(await locator.evaluate("e => e.checkVisibility({visibilityProperty: true})"))


async def test_what_waits_is_there_for_its_author_alone_and_is_saved_without_a_jump(
    town: Town,
) -> None:
    ada, ben = await town.person("ada waits"), await town.person("ben waits")
    topic = await ada.new_topic("Patience", "Saved already.")
    await expect(ada.page.locator(".pill")).to_have_count(0)
    await ben.go(f"/topics/{topic}")
    await ada.connected()
    async with writer_paused(town):
        await ada.reply("I wait.")
        pill = ada.pill("I wait.")
        assert not await _visible(pill)  # in the first second there is nothing to be seen
        await expect(pill.get_by_text("saving", exact=True)).to_be_visible(timeout=1500)
        await ada.page.evaluate("window.loaded = true")
        await ada.reply("I wait below.")
        again = await town.person("ada waits")
        await again.go(f"/topics/{topic}")
        assert await again.texts() == ["Saved already.", "I wait.", "I wait below."]
        await again.page.reload()
        assert await again.texts() == ["Saved already.", "I wait.", "I wait below."]
        await expect(again.page.get_by_text("3 posts")).to_be_visible()
        await expect(again.pill("I wait.")).to_be_visible()
        await ben.page.reload()
        assert await ben.texts() == ["Saved already."]
        await expect(ben.page.get_by_text("1 post")).to_be_visible()
        late = "still saving, you can leave this page"
        await expect(pill.get_by_text(late)).to_be_visible(timeout=10_500)
        await expect(again.pill("I wait.").get_by_text(late)).to_be_visible()
        await again.go("/submissions")
        await expect(again.page.get_by_text(late).first).to_be_visible()
        before = await _boxes(ada.page)
        await ada.post("I wait.").evaluate("e => { e.marked = true; }")
    await expect(ada.page.locator(".pill")).to_have_count(0, timeout=15_000)
    assert await _boxes(ada.page) == before
    assert await ada.post("I wait.").evaluate("e => e.marked")  # it is the same element
    assert await ada.page.evaluate("window.loaded")
    await expect(ada.page.locator("#say")).to_have_text("Saved.")
    await expect(again.page.get_by_text("saved", exact=True).first).to_be_visible()
    await expect(again.page.get_by_text(late)).to_have_count(0)
    await expect(ben.post("I wait below.")).to_be_visible(timeout=8000)


async def test_what_waits_can_be_changed_deleted_and_reacted_to(town: Town) -> None:
    ada = await town.person("ada stacks")
    await ada.new_topic("Stacked", "Below")
    async with writer_paused(town):
        await ada.reply("First words")
        await ada.post("First words").get_by_role("button", name="heart").click()
        await expect(ada.post("First words").get_by_text("1 reaction")).to_be_visible()
        await ada.post("First words").get_by_role("link", name="Edit").click()
        await ada.page.get_by_label("Edit post").fill("Second words")
        await ada.page.get_by_role("button", name="Save").click()
        await expect(ada.post("Second words").get_by_text("1 reaction")).to_be_visible()
        await ada.reply("Never mind")
        await ada.post("Never mind").get_by_role("link", name="Delete").click()
        await ada.page.get_by_role("button", name="Delete").click()
        await expect(ada.post("Never mind")).to_have_count(0)
        await ada.page.reload()
        assert await ada.texts() == ["Below", "Second words"]
    await expect(ada.page.locator(".pill")).to_have_count(0, timeout=15_000)
    await ada.page.reload()
    assert await ada.texts() == ["Below", "Second words"]
    await expect(ada.post("Second words").get_by_text("1 reaction")).to_be_visible()


async def _rejected(town: Town, ada: Person, topic: uuid.UUID, *bodies: str) -> None:
    """These posts are written while a moderator's lock of the topic is on its way before them."""
    async with writer_paused(town):
        await town.moderate(topic, locked=True)
        for body in bodies:
            await ada.reply(body)
    for body in bodies:
        await expect(ada.post(body).get_by_text("Not saved.")).to_be_visible(timeout=15_000)


async def test_a_rejection_stays_with_its_author_with_the_reason_and_three_ways_out(
    town: Town,
) -> None:
    ada, ben = await town.person("ada rejected"), await town.person("ben rejected")
    await ada.context.grant_permissions(["clipboard-read", "clipboard-write"])
    topic = await ada.new_topic("To be locked", "Come in.")
    await ben.go(f"/topics/{topic}")
    await ada.connected()
    bodies = ("Too late for this", "Put <b>aside</b> & forget")
    await _rejected(town, ada, topic, *bodies)
    first, second = ada.post(bodies[0]), ada.post(bodies[1])
    for post in (first, second):
        await expect(post.get_by_role("group", name="Not saved")).to_contain_text(
            "It was no longer allowed"
        )
        await expect(post.locator(".pill")).to_have_count(0)
    await expect(ada.page.locator("#say")).to_contain_text("Not saved.")
    await expect(ada.page.get_by_role("link", name="Notices 2 unread")).to_be_visible()
    await expect(ada.page.get_by_text("1 post", exact=False).first).to_be_visible()

    await second.get_by_role("button", name="Copy text").click()
    assert await ada.page.evaluate("navigator.clipboard.readText()") == bodies[1]
    await ada.page.reload()  # all of it is there after a reload, in its place and on the own pages
    await expect(second.get_by_text("Not saved.")).to_be_visible()
    for path in ("/notices", "/submissions"):
        await ada.go(path)
        item = ada.page.get_by_role("listitem").filter(
            has=ada.page.locator(f"textarea:has-text({bodies[1]!r})")
        )
        await expect(item.get_by_text("Not saved.")).to_be_visible()
        for name in ("Edit and resend", "Copy text", "Discard"):
            await expect(item.get_by_text(name)).to_be_visible()

    await ada.go(f"/topics/{topic}")
    await second.get_by_role("button", name="Discard").click()
    await expect(second).to_have_count(0)
    await expect(ada.page.get_by_role("link", name="Notices 1 unread")).to_be_visible()

    await town.moderate(topic, locked=False)
    await expect(ada.page.locator(".locked")).to_have_count(0, timeout=8000)
    await first.get_by_role("link", name="Edit and resend").click()
    await expect(ada.page.get_by_label("Your text")).to_have_value(bodies[0])
    await ada.page.get_by_label("Your text").fill("In time now")
    await ada.page.get_by_role("button", name="Send again").click()
    await expect(ada.post("In time now")).to_be_visible()
    await expect(ada.page.get_by_role("link", name="Notices", exact=True)).to_be_visible()
    await expect(ben.post("In time now")).to_be_visible(timeout=8000)
    assert await ben.texts() == await ada.texts() == ["Come in.", "In time now"]
    await ben.page.reload()
    assert await ben.texts() == ["Come in.", "In time now"]


async def test_a_change_that_is_rejected_leaves_the_post_and_returns_the_text(town: Town) -> None:
    """A moderator's edit comes before the author's: the writer sees the conflict."""
    ada = await town.person("ada overtaken")
    await ada.new_topic("Overtaken", "As I wrote it")
    post = (await ada.page.get_by_role("article").get_attribute("id") or "").removeprefix("post-")
    await expect(ada.page.locator(".pill")).to_have_count(0)
    async with writer_paused(town):
        async with town.site.installation.client("Mo", "moderator") as mo:
            headers = {"content-type": "application/merge-patch+json", "if-match": "*"}
            path = f"/v1/posts/{post}"
            changed = await mo.patch(path, json={"body": "As it was mended"}, headers=headers)
            assert changed.status_code == 202
        await ada.post("As I wrote it").get_by_role("link", name="Edit").click()
        await ada.page.get_by_label("Edit post").fill("As I want it")
        await ada.page.get_by_role("button", name="Save").click()
        await expect(ada.post("As I want it")).to_be_visible()
    article = ada.page.locator(f"#post-{post}")
    await expect(article.get_by_text("Not saved.")).to_be_visible(timeout=15_000)
    await expect(article.locator(".text")).to_have_text("As it was mended")
    await expect(article).to_contain_text("It was changed in the meantime.")
    await expect(article.get_by_label("Your text")).to_have_value("As I want it")
    await article.get_by_role("link", name="Edit and resend").click()
    await expect(ada.page.locator(".theirs")).to_have_text("As it was mended")
    await ada.page.get_by_role("button", name="Send again").click()
    await expect(ada.post("As I want it")).to_be_visible()
    await expect(ada.page.get_by_text("Not saved.")).to_have_count(0)


async def test_a_topic_that_is_rejected_stays_at_its_address(town: Town) -> None:
    ada, ben = await town.person("ada banned"), await town.person("ben banned")
    await ada.new_topic("Before", "Still allowed")
    await expect(ada.page.locator(".pill")).to_have_count(0)
    me = str((await town.site.installation.fetch(
        'SELECT id FROM "user" WHERE name = $1', "ada banned"
    ))[0]["id"])  # fmt: skip
    async with writer_paused(town):
        async with town.site.installation.client("Mo", "moderator") as mo:
            headers = {"content-type": "application/merge-patch+json", "if-match": "*"}
            banned = await mo.patch(f"/v1/users/{me}", json={"banned": True}, headers=headers)
            assert banned.status_code == 202, banned.text
        topic = await ada.new_topic("After", "No longer allowed")
    await expect(ada.page.get_by_role("group", name="Not saved")).to_be_visible(timeout=15_000)
    await expect(ada.page.get_by_role("heading", name="After")).to_be_visible()
    await ben.go("/")
    await expect(ben.page.get_by_text("After", exact=True)).to_have_count(0)
    await ben.go(f"/topics/{topic}")
    await expect(ben.page.get_by_text("This is not there")).to_be_visible()
    await ada.go("/")
    await expect(ada.page.get_by_text("After", exact=True)).to_have_count(0)
    await ada.page.get_by_text("Before", exact=True).click()
    await expect(ada.page.get_by_text("You may read here, but not write.")).to_be_visible()
    await ada.page.get_by_role("link", name="Notices 1 unread").click()
    await ada.page.get_by_role("button", name="Discard").click()
    await expect(ada.page.get_by_role("link", name="Notices", exact=True)).to_be_visible()
    ben.troubles[:] = [t for t in ben.troubles if "status of 404" not in t]
