"""A notice reaches an open page by itself; and how one is told is chosen on a page."""

import pytest
from playwright.async_api import expect

from tests.acceptance.test_authors import notify
from tests.browser.people import PHONE, Town
from tests.commands import author, notice_to

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]


async def test_the_bell_rings_without_a_reload_and_the_notice_can_be_put_aside(town: Town) -> None:
    ada = await town.person("ada hears")
    topic = await ada.new_topic("News", "Nothing yet.")
    await ada.connected()
    bell = ada.page.locator("#bell")
    await expect(bell.locator(".count")).to_have_count(0)
    await ada.page.get_by_label("Your reply").fill("A draft that stays.")
    await ada.page.evaluate("window.loaded = true")
    log_id = await town.site.installation.value("SELECT log_id FROM afterwrite.lane")
    notice = notice_to(author("ada hears"), topic, detail="1 change is safe and waits.")
    await notify(town.site.installation, notice, log_id)
    await expect(bell.locator(".count")).to_contain_text("1", timeout=2500)
    await expect(ada.page.locator("#say")).to_have_text("1 change is safe and waits.")
    assert await ada.page.evaluate("window.loaded")
    await expect(ada.page.get_by_label("Your reply")).to_have_value("A draft that stays.")
    await bell.click()
    item = ada.page.locator(".notices li").filter(has_text="1 change is safe and waits.")
    await expect(item).to_contain_text("Still waiting.")
    await item.get_by_role("button", name="Mark as read").click()
    await expect(bell.locator(".count")).to_have_count(0)
    await expect(item.get_by_role("button")).to_have_count(0)

    await ada.page.get_by_role("link", name="How you are told").click()
    mail = ada.page.get_by_label("Tell me by mail, too")
    await expect(mail).to_be_checked()
    await mail.uncheck()
    await ada.page.get_by_label("Language").select_option("Deutsch")
    await ada.page.get_by_role("button", name="Save").click()
    await expect(ada.page.get_by_text("Mail is not sent to you.")).to_be_visible()
    await expect(mail).not_to_be_checked()
    await expect(ada.page.get_by_label("Language")).to_have_value("de")
    for path in ("/preferences", "/notices", "/sign-in"):
        await ada.page.set_viewport_size(PHONE)
        await ada.go(path)
        wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
        assert not await ada.page.evaluate(wide), path
