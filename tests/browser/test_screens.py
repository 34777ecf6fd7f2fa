"""The pictures of the documents. They are written there only when AFTERWRITE_TEST_PICTURES=true,
so that a test run leaves the work tree as it was; made they are each time."""

import os
from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.browser.people import PHONE, Person, Town
from tests.browser.test_waiting import writer_paused

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

KEPT = Path(__file__).parents[2] / "docs" / "images"
MOST_BYTES = 150_000


async def test_pictures(town: Town, tmp_path: Path) -> None:
    folder = KEPT if os.environ.get("AFTERWRITE_TEST_PICTURES") == "true" else tmp_path
    ben, ada = await town.person("Ben"), await town.person("Ada")

    async def picture(person: Person, name: str) -> None:
        await person.page.evaluate("document.activeElement.blur()")
        await person.page.mouse.move(0, 0)
        path = folder / f"{name}.png"
        await person.page.screenshot(path=path, full_page=True)
        assert path.stat().st_size < MOST_BYTES

    topic = await ben.new_topic(
        "How do you descale a moka pot?",
        "Mine has gone dull inside.\n\nVinegar, citric acid, or simply leave it?",
    )
    await ada.page.set_viewport_size({"width": 760, "height": 640})
    await ada.go(f"/topics/{topic}")
    await ada.post("Mine has gone dull").get_by_role("button", name="thumbs up").click()
    await expect(ada.page.locator(".pill")).to_have_count(0)
    await ada.connected()
    reply = "Citric acid: one spoon for each cup, then boil plain water twice."
    async with writer_paused(town):
        await ada.reply(reply)
        await expect(ada.pill(reply)).to_be_visible(timeout=3000)
        await picture(ada, "forum-waiting")
    await expect(ada.page.locator(".pill")).to_have_count(0, timeout=15_000)
    await picture(ada, "forum-saved")
    late = "And never put it into the dishwasher."
    async with writer_paused(town):
        await town.moderate(topic, locked=True)
        await ada.reply(late)
    await expect(ada.post(late).get_by_text("Not saved.")).to_be_visible(timeout=15_000)
    await picture(ada, "forum-rejected")
    await ada.go("/notices")
    await picture(ada, "forum-notices")
    await ada.page.set_viewport_size(PHONE)
    await ada.go(f"/topics/{topic}")
    await picture(ada, "forum-phone")
