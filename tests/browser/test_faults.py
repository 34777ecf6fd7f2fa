"""Servers that are away: the page says so in plain words and loses nothing."""

import asyncio
import re

import pytest
from playwright.async_api import expect

from tests.browser.conftest import FORUM
from tests.browser.people import Person, Town
from tests.installation import eventually_async

pytestmark = [
    pytest.mark.browser,
    pytest.mark.servers_go_down,
    pytest.mark.asyncio(loop_scope="session"),
]


async def _reads_again(town: Town, ada: Person, path: str) -> None:
    """The API looks for a lost PostgreSQL in intervals of its own."""

    async def there() -> bool:
        await ada.go(path)
        return await ada.page.locator("#banners .banner").count() == 0

    await eventually_async(there, 20, "the database to be read again")


async def test_postgresql_stopped_while_posting(town: Town) -> None:
    """Writing goes on, what was there stays, and it is said how old it is."""
    ada = await town.person("ada outage")
    topic = await ada.new_topic("Outage", "Before")
    await expect(ada.page.locator(".pill")).to_have_count(0)
    await ada.page.reload()
    await ada.connected()
    await ada.go("/")
    await ada.go(f"/topics/{topic}")
    services = town.site.installation.services
    services.kill("postgres")
    try:
        await ada.reply("During")
        await expect(ada.pill("During")).to_be_visible(timeout=3000)
        told = re.compile("The database cannot be reached. You see what was there .* ago")
        await expect(ada.page.get_by_text(told)).to_be_visible(timeout=8000)
        assert await ada.texts() == ["Before", "During"]
        await ada.page.reload()
        assert await ada.texts() == ["Before", "During"]
        await expect(ada.page.get_by_text(told)).to_be_visible()
        await ada.go("/submissions")
        await expect(ada.page.get_by_text("During")).to_be_visible()
        await ada.go("/topics/00000000-0000-7000-8000-000000000000")
        await expect(ada.page.get_by_text("The database cannot be reached")).to_be_visible()
        await ada.go(f"/topics/{topic}")
    finally:
        services.restart("postgres")
    await expect(ada.page.locator(".pill")).to_have_count(0, timeout=30_000)
    await _reads_again(town, ada, f"/topics/{topic}")
    assert await ada.texts() == ["Before", "During"]


async def test_kafka_stopped_while_posting(town: Town) -> None:
    """Nothing is taken that could be lost: the text stays, with a word, and is sent again."""
    ada = await town.person("ada unheard")
    await ada.new_topic("Unheard", "Before")
    await expect(ada.page.locator(".pill")).to_have_count(0)
    services = town.site.installation.services
    services.pause("kafka")
    try:
        await ada.write("Is anybody there?")
        told = ada.page.locator("#form-problem")
        await expect(told).to_contain_text("Your text is still here", timeout=5000)
        await expect(ada.page.get_by_label("Your reply")).to_have_value("Is anybody there?")
        # It may have arrived; then its author sees it, and sending it again does not double it.
        await ada.page.get_by_label("Your reply").press("End")
        await ada.page.keyboard.type(" Hello?")
    finally:
        services.resume("kafka")

    async def sent() -> bool:
        await ada.page.get_by_role("button", name="Post reply").click()
        await asyncio.sleep(1)
        return await ada.page.get_by_label("Your reply").input_value() == ""

    await ada.page.get_by_label("Your reply").fill("Is anybody there?")
    await eventually_async(sent, 30, "the post to be accepted")
    await expect(ada.post("Is anybody there?")).to_have_count(1)
    await expect(ada.page.locator(".pill")).to_have_count(0, timeout=30_000)
    assert await ada.texts() == ["Before", "Is anybody there?"]


async def test_the_server_away_while_writing(town: Town) -> None:
    """The page stays as it is, says so, and goes on by itself when the server is back."""
    ada = await town.person("ada alone")
    await ada.new_topic("Alone", "Before")
    await ada.connected()
    api = town.site.installation.processes["api"]
    api.terminate()
    try:
        offline = ada.page.get_by_text("The server cannot be reached")
        await expect(offline).to_be_visible(timeout=8000)
        await ada.write("To be kept")
        await expect(ada.page.get_by_label("Your reply")).to_have_value("To be kept")
        assert await ada.texts() == ["Before"]
    finally:
        port = api.url.rsplit(":", 1)[1]
        await town.site.start_api(**FORUM, port=port)
    await expect(offline).to_be_hidden(timeout=20_000)
    await ada.page.get_by_role("button", name="Post reply").click()
    await expect(ada.post("To be kept")).to_be_visible()
    await expect(ada.post("To be kept")).to_have_count(1)
    await expect(ada.page.get_by_label("Your reply")).to_have_value("")


async def test_redis_stopped_while_posting(town: Town) -> None:
    """Kafka is the truth: it is accepted, and shown beside the page until it is saved."""
    ada = await town.person("ada forgotten")
    await ada.new_topic("Forgotten", "Before")
    await expect(ada.page.locator(".pill")).to_have_count(0)
    services = town.site.installation.services
    services.pause("redis")
    try:
        await ada.write("Not remembered")
        await expect(ada.post("Not remembered")).to_be_visible(timeout=8000)
        await expect(ada.page.locator("#banners")).to_contain_text(
            "cannot be shown at the moment. They are safe.", timeout=8000
        )
    finally:
        services.resume("redis")
    await expect(ada.page.locator("#banners .banner")).to_have_count(0, timeout=20_000)
    await expect(ada.post("Not remembered")).to_have_count(1)
    await ada.page.reload()
    assert await ada.texts() == ["Before", "Not remembered"]
