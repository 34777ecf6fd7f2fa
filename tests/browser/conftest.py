"""One browser and one site for all of these tests; each has people of its own."""

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright

from tests.acceptance.helpers import Site
from tests.browser.people import LOSSES, Town
from tests.installation import Installation, fresh_name
from tests.services import Services

CHROMIUM: Final = Path(os.environ.get("AFTERWRITE_TEST_CHROMIUM", "/usr/bin/chromium"))
THERE: Final = CHROMIUM.exists()
ARGUMENTS: Final = [
    "--no-sandbox",  # the tests run as root in containers; the pages are our own
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
FORUM: Final = {"site": "forum", "demo_sign_in": "true", "admin": "true"}


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Chromium as the system has it; nothing is downloaded."""
    if not THERE:
        told = f"SKIPPED FOR REAL: there is no browser at {CHROMIUM}; set AFTERWRITE_TEST_CHROMIUM"
        if os.environ.get("CI") == "true":
            pytest.fail(told)
        pytest.skip(told)
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield launched
        await launched.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def forum(
    services: Services, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Site]:
    """An API that serves the forum, and a writer."""
    made = Installation(services, fresh_name(), tmp_path_factory.mktemp("forum"))
    await made.create()
    async with Site(made) as site:
        made.start("writer")
        await site.start_api(**FORUM)
        await made.processes["writer"].ready()
        yield site
    await made.destroy()


@pytest_asyncio.fixture(loop_scope="session")
async def town(
    browser: Browser, forum: Site, request: pytest.FixtureRequest
) -> AsyncIterator[Town]:
    """The site for one test. Afterwards nothing may have gone wrong in any window, but for what a
    browser notes of servers that a test marked `servers_go_down` took away."""
    made = Town(forum, browser, forum.installation.processes["api"].url)
    try:
        yield made
    finally:
        made.writer.signal(signal.SIGCONT)
        troubles = await made.leave()
    if request.node.get_closest_marker("servers_go_down"):
        troubles = [t for t in troubles if not any(loss in t for loss in LOSSES)]
    assert troubles == []
