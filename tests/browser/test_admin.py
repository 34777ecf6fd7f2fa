"""The operators' pages in a browser: what one on call sees, and does, at three in the morning."""

import os
import re
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest
from playwright.async_api import ViewportSize, expect

from tests.browser.people import COOKIE, Person, Town
from tests.browser.test_hostile import HOSTILE
from tests.browser.test_waiting import writer_paused
from tests.installation import eventually_async

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

KEPT = Path(__file__).parents[2] / "docs" / "images"
MOST_BYTES = 200_000
WIDE: Final[ViewportSize] = {"width": 1180, "height": 760}


async def operator(town: Town, name: str, role: str = "operator", **options: Any) -> Person:
    return await town.person(name, WIDE, roles=[role], **options)


async def picture(person: Person, name: str, tmp_path: Path) -> None:
    """Made each time; kept only where that is asked for."""
    folder = KEPT if os.environ.get("AFTERWRITE_TEST_PICTURES") == "true" else tmp_path
    await expect(person.page.locator("html.js")).to_be_attached()
    await person.page.evaluate("document.activeElement?.blur()")
    await person.page.mouse.move(0, 0)
    path = folder / f"admin-{name}.png"
    await person.page.screenshot(path=path, full_page=True)
    assert path.stat().st_size < MOST_BYTES


async def refused_post(town: Town, author: str, text: str) -> tuple[uuid.UUID, uuid.UUID]:
    """A post that the writer refuses: its topic was locked when it was decided. Topic and command."""
    site = town.site
    opened = await site.accepted(author, f"{author} opens {uuid.uuid4()}")
    await site.reaches(author, opened.command, "saved")
    topic = opened.topic
    async with writer_paused(town):
        await town.moderate(topic, locked=True)
        answer = await site.ask(author, "POST", f"/v1/topics/{topic}/posts", {"body": text})
        assert answer.status_code == 202, answer.text
    command = uuid.UUID(answer.json()["command"])
    await site.reaches(author, command, "rejected")
    return topic, command


async def wait_for_act(person: Person, word: str = "done") -> None:
    """The page of an act says by itself what became of it."""
    await expect(person.page).to_have_url(re.compile("/admin/acts/"))
    status = person.page.get_by_role("status").filter(has_text=word)
    await expect(status.first).to_be_visible(timeout=20_000)


@asynccontextmanager
async def postgresql_away(town: Town) -> AsyncIterator[None]:
    services = town.site.installation.services
    services.kill("postgres")
    try:
        yield
    finally:
        services.restart("postgres")


@pytest.mark.servers_go_down
async def test_the_overview_tells_of_an_outage_by_itself_and_of_its_end(
    town: Town, tmp_path: Path
) -> None:
    ola = await operator(town, "Ola")
    await ola.go("/admin")
    verdict = ola.page.locator("#verdict")
    await expect(verdict).to_have_class(re.compile("well|attention"), timeout=15_000)
    sent = await town.site.accepted("ada before dawn", f"Before {uuid.uuid4()}")
    await town.site.reaches("ada before dawn", sent.command, "saved")
    async with postgresql_away(town):
        await expect(verdict).to_contain_text("PostgreSQL has been away for", timeout=15_000)
        for n in range(3):
            await town.site.accepted("ada before dawn", f"During {n}", sent.topic)
        await expect(verdict).to_contain_text("3 changes wait; they are safe.", timeout=15_000)
        await expect(ola.page.get_by_text("Numbers from it are those of")).to_be_visible()
        await picture(ola, "overview-outage", tmp_path)
        await ola.go("/admin/dead")
        await expect(
            ola.page.get_by_text("PostgreSQL cannot be asked at the moment")
        ).to_be_visible()
        await ola.go("/admin/commands?state=pending")
        await expect(ola.page.locator("tbody").get_by_text("create post")).to_have_count(3)
        await ola.go("/admin")
        await expect(verdict).to_contain_text("PostgreSQL has been away for")
    await expect(verdict).not_to_contain_text("PostgreSQL", timeout=40_000)
    waits = ola.page.locator(".figures div").filter(has_text="Changes that wait")
    await expect(waits.locator("dd")).to_have_text("0", timeout=20_000)


async def test_a_dead_letter_is_looked_at_tried_mended_and_replayed(
    town: Town, tmp_path: Path
) -> None:
    topic, command = await refused_post(town, "ada dead", "Too late, alas.")
    await refused_post(town, "ben dead", "Me, too.")
    ola = await operator(town, "Ola")
    page = ola.page
    await ola.go("/admin")
    await expect(page.locator("#verdict")).to_contain_text("for somebody to look", timeout=15_000)
    await page.get_by_role("link", name="Dead letters").first.click()
    await expect(page.get_by_role("heading", name="Dead letters")).to_be_visible()
    await picture(ola, "dead-letters", tmp_path)
    await page.locator("tbody").get_by_role("link", name="forbidden").first.click()
    await page.get_by_label("User", exact=True).fill("ada dead")
    await page.get_by_role("button", name="Show").click()
    await expect(page.locator("tbody tr")).to_have_count(1)
    await page.locator("tbody [data-row]").click()
    await expect(page.locator("pre")).to_contain_text('"body": "Too late, alas."')
    await picture(ola, "dead-letter", tmp_path)
    await page.get_by_role("link", name="Raw").click()
    await expect(page.locator("pre")).to_contain_text('"body":"Too late, alas."')
    await page.get_by_role("link", name="Edit and replay…").click()
    body = page.get_by_label("body")
    await expect(body).to_have_value("Too late, alas.")
    await body.fill("In time, after all.")
    await page.get_by_role("button", name="Dry run").click()
    await wait_for_act(ola, "Nothing was done")
    await expect(page.locator("tbody")).to_contain_text("forbidden")
    await town.moderate(topic, locked=False)
    await page.go_back()
    await page.get_by_label("body").fill("In time, after all.")
    await page.get_by_role("button", name="Replay as edited").click()
    await wait_for_act(ola)
    await picture(ola, "act", tmp_path)
    await page.locator("tbody").get_by_role("link").last.click()
    await expect(page.get_by_text("decided: saved")).to_be_visible(timeout=20_000)
    await expect(page.get_by_text("It replays")).to_be_visible()
    await picture(ola, "command", tmp_path)
    posts = (await town.site.ask("ada dead", "GET", f"/v1/topics/{topic}/posts")).json()
    assert [p["body"] for p in posts["items"]].count("In time, after all.") == 1
    await ola.go(f"/admin/commands/{command}")
    await expect(page.get_by_text("replayed as")).to_be_visible()
    await ola.go("/admin/audit?act=edit&who=Ola")
    await expect(page.locator("tbody tr")).to_have_count(1)


async def test_a_selection_is_discarded_with_a_reason(town: Town) -> None:
    for n in range(2):
        await refused_post(town, "cy discarded", f"Nobody will miss this {n}.")
    ola = await operator(town, "Ola")
    page = ola.page
    await ola.go("/admin/dead/rows?user=cy%20discarded")
    await page.get_by_label("Select all on this page").check()
    await page.get_by_role("button", name="Discard selected…").click()
    await expect(page.get_by_text("This closes 2 dead letters of 1 author.")).to_be_visible()
    await page.get_by_label("Reason").fill("They said so.")
    await page.get_by_role("button", name="Discard 2 letters").click()
    await wait_for_act(ola)
    await ola.go("/admin/dead/rows?user=cy%20discarded&closed=discarded")
    await expect(page.locator("tbody tr")).to_have_count(2)


async def test_a_pause_is_seen_everywhere_and_taken_back(town: Town, tmp_path: Path) -> None:
    ola = await operator(town, "Ola")
    page = ola.page
    await ola.go("/admin")
    await page.get_by_role("link", name="Pause…").click()
    await page.get_by_role("button", name="Pause lane 0").click()  # the browser asks for a reason
    await page.get_by_label("Reason").fill("The disks are being moved.")
    await page.get_by_role("button", name="Pause lane 0").click()
    await wait_for_act(ola)
    try:
        banner = page.locator("#around").get_by_text("The disks are being moved.")
        await expect(banner).to_be_visible(timeout=15_000)
        sent = await town.site.accepted("ada paused", f"Meanwhile {uuid.uuid4()}")
        await ola.go("/admin")
        told = page.locator("#verdict").get_by_text("1 change waits and is safe")
        await expect(told).to_be_visible(timeout=15_000)
        await picture(ola, "overview-paused", tmp_path)
        await ola.go("/admin/commands?state=pending")
        await expect(page.locator("tbody").get_by_text("create topic")).to_have_count(1)
        await expect(banner).to_be_visible()
    finally:
        await ola.go("/admin/lanes/0/resume")
        await page.get_by_role("button", name="Resume lane 0").click()
        await wait_for_act(ola)
    await town.site.reaches("ada paused", sent.command, "saved")
    await ola.go("/admin")
    await expect(page.locator("#around")).not_to_contain_text("paused", timeout=15_000)
    await expect(page.locator("#verdict")).not_to_contain_text("paused", timeout=15_000)
    await picture(ola, "overview", tmp_path)


async def test_a_viewer_looks_and_cannot_act(town: Town) -> None:
    await refused_post(town, "di viewed", "Look at me.")
    vic = await operator(town, "Vic", "viewer")
    await vic.go("/admin")
    await expect(vic.page.locator("#verdict")).to_be_visible()
    await expect(vic.page.get_by_role("link", name="Pause…")).to_have_count(0)
    await vic.go("/admin/dead/rows?user=di%20viewed")
    await expect(vic.page.locator("tbody tr")).to_have_count(1)
    await expect(vic.page.get_by_role("checkbox")).to_have_count(0)
    url, token = town.url, town.site.installation.token("Vic", "viewer")
    async with httpx2.AsyncClient(base_url=url, cookies={COOKIE: token}) as client:
        for path in ("/admin/lanes/0/pause", "/admin/dead/confirm?act=replay"):
            assert (await client.get(path)).status_code == 403
        acts = {"act": "pause", "lane": "0", "reason": "why not"}
        answer = await client.post("/admin/acts", data=acts, headers={"origin": url})
        assert answer.status_code == 403
    assert await town.site.installation.value("SELECT count(paused) FROM afterwrite.lane") == 0


async def test_who_has_no_role_finds_nothing(town: Town) -> None:
    ada = await town.person("ada curious")
    for path in ("/admin", "/admin/dead", "/admin/commands", "/admin/lanes/0/pause"):
        answer = await ada.page.request.get(town.url + path)
        assert answer.status == 404
        assert "There is no such page." in await answer.text()


async def test_in_the_demo_one_chooses_a_role(town: Town) -> None:
    context = await town.browser.new_context(viewport=WIDE)
    page = await context.new_page()
    await page.goto(f"{town.url}/admin/audit")
    await page.get_by_label("Name").fill("Somebody")
    await page.get_by_label("Role").select_option("viewer")
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("heading", name="Audit log")).to_be_visible()
    await expect(page.locator(".role")).to_have_text("viewer")
    await expect(page.locator("html.js")).to_be_attached()
    await page.keyboard.press("/")
    await expect(page.get_by_label("Who")).to_be_focused()
    await context.close()


async def test_hostile_text_is_inert(town: Town) -> None:
    """What users wrote is text, on every page that shows it."""
    ola = await operator(town, "<b onclick=alert(1)>Ola</b>")
    await ola.page.add_init_script(
        "window.broken = []; addEventListener('securitypolicyviolation', e => broken.push(e.blockedURI))"
    )
    text = "\n".join(HOSTILE)
    author = '"><script>alert("name")</script>'
    _, command = await refused_post(town, author, text)
    place = (
        await town.site.installation.fetch(
            'SELECT lane, "offset" FROM afterwrite.dead_letter WHERE command_id = $1', command
        )
    )[0]
    at = f"/admin/dead/{place['lane']}/{place['offset']}"
    for path in (at, f"{at}?view=raw", f"/admin/commands/{command}", f"{at}/edit", "/admin/dead"):
        await ola.go(path)
        assert await ola.page.evaluate("window.broken") == []
        wide = await ola.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, path
    await ola.go(at)
    assert HOSTILE[0] in await ola.page.locator("pre").inner_text()
    await ola.go(f"{at}/edit")
    await expect(ola.page.get_by_label("body")).to_have_value(text)
    assert ola.troubles == []


async def test_pages_work_without_scripts(town: Town) -> None:
    """They look again by themselves where that matters, and forms are forms."""
    ola = await operator(town, "Ola", java_script_enabled=False)
    await ola.go("/admin")
    await expect(ola.page.locator("#verdict")).to_be_visible()
    assert '<meta http-equiv="refresh"' in await ola.page.content()
    await ola.go("/admin/parked")
    await ola.go("/admin/lanes/0/pause")
    await ola.page.get_by_label("Reason").fill("Without scripts")
    await ola.page.get_by_role("button", name="Pause lane 0").click()

    async def paused() -> bool:
        return bool(await town.site.installation.value("SELECT count(paused) FROM afterwrite.lane"))

    await eventually_async(paused, 20, "the lane to be paused")
    await ola.go("/admin/lanes/0/resume")
    await ola.page.get_by_role("button", name="Resume lane 0").click()

    async def resumed() -> bool:
        return not await paused()

    await eventually_async(resumed, 20, "the lane to be resumed")
