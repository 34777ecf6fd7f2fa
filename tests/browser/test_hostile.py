"""Hostile text is text: nothing runs, nothing is fetched, nothing breaks the page."""

import uuid

import httpx2
import pytest
from playwright.async_api import expect

from tests.browser.people import COOKIE, Town

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "<svg onload=alert(1)>",
    "<svg/onload=alert`1`//",
    "javascript:alert(1)",
    "</div></article></section><h1>Broken out</h1>",
    "</textarea><script>alert(1)</script>",
    "{{ 7 * 7 }} {% raw %} ${7*7} #{7*7}",
    "<hx-partial hx-target='body'>gone</hx-partial>",
    "<div hx-get='/sign-out' hx-trigger='load'></div>",
    '<b style="position:fixed;inset:0">over all</b>',
    "\u202egnp.exe \u2066isolate\u2069 \u05d0\u05d1\u05d2 mixed \u0627\u0644\u0639",
    "Z\u0361\u035c\u0489a\u0300\u0301\u0302\u0303\u0304\u0305l\u0306\u0307\u0308go",
    "W" * 3000,
    "\u200b\ufeff\u00ad invisible",
    "<!--<script>--><plaintext>",
    "&lt;b&gt; &amp;amp; &#60;",
    "https://example.org/?a=<b>&c='d'\"e\"",
]


async def test_hostile_text_is_shown_as_it_is(town: Town) -> None:
    """Through every page that shows it: topic, list, edit form, submissions, browser title."""
    ada = await town.person("<b onclick=alert(1)>ada</b>")
    ben = await town.person("ben reads")
    for window in (ada, ben):
        await window.page.add_init_script(
            "window.broken = []; addEventListener('securitypolicyviolation', e => broken.push(e.blockedURI))"
        )
    topic = await ada.new_topic('"><script>alert("title")</script>', HOSTILE[0])
    for text in HOSTILE[1:]:
        await ada.page.get_by_label("Your reply").fill(text)
        count = await ada.page.get_by_role("article").count()
        await ada.page.get_by_role("button", name="Post reply").click()
        await expect(ada.page.get_by_role("article")).to_have_count(count + 1)
    await expect(ada.page.locator(".pill")).to_have_count(0, timeout=10_000)
    shown = "[...document.querySelectorAll('article .text')].map(e => e.textContent)"
    for window in (ada, ben):
        await window.go(f"/topics/{topic}")
        assert await window.page.evaluate(shown) == HOSTILE
        assert await window.page.title() == '"><script>alert("title")</script> · Afterwrite forum'
        wide = await window.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide == 0
    for n, text in enumerate(HOSTILE):
        await ada.page.get_by_role("article").nth(n).get_by_role("link", name="Edit").click()
        await expect(ada.page.get_by_label("Edit post")).to_have_value(text)
        await ada.page.get_by_role("link", name="Cancel").click()
        await expect(ada.page.get_by_label("Edit post")).to_have_count(0)
    for path in ("/", "/submissions", "/notices"):
        await ada.go(path)
        await ada.connected()
    assert await ada.page.evaluate("broken") == [] == await ben.page.evaluate("broken")


async def test_what_cannot_be_stored_is_refused_in_words(town: Town) -> None:
    ada = await town.person("ada refused")
    await ada.new_topic("Refused", "Before")
    await ada.page.get_by_label("Your reply").evaluate("e => { e.value = 'a\\u0000b'; }")
    await ada.page.get_by_role("button", name="Post reply").click()
    problem = ada.page.locator("#form-problem")
    await expect(problem).to_have_text("The text contains the character U+0000.")
    await ada.page.get_by_label("Your reply").fill("ü" * 40_000)
    await ada.page.get_by_role("button", name="Post reply").click()
    await expect(problem).to_have_text("The text is longer than 65536 bytes of UTF-8.")
    await ada.page.get_by_label("Your reply").fill("ü" * 100_000)
    await ada.page.get_by_role("button", name="Post reply").click()
    await expect(ada.page.locator("#trouble")).to_have_text("The text is too long.")
    await ada.page.get_by_label("Your reply").fill("ü" * 32_768)
    await ada.page.get_by_role("button", name="Post reply").click()
    await expect(ada.page.get_by_role("article")).to_have_count(2)
    await expect(problem).to_have_text("")
    await ada.go("/topics/new")
    await ada.page.get_by_label("Title").fill("Fine")
    await ada.page.get_by_label("Title").evaluate("e => { e.value = 'a\\u0001b'; }")
    await ada.page.get_by_label("First post").fill("Fine")
    await ada.page.get_by_role("button", name="Post topic").click()
    await expect(problem).to_contain_text("The title contains a control character")
    await expect(ada.page.get_by_label("First post")).to_have_value("Fine")
    ada.troubles[:] = [t for t in ada.troubles if "status of 4" not in t]


async def test_another_site_cannot_write_in_a_visitors_name(town: Town) -> None:
    """Its form is sent without the cookie, and would be refused if it had it."""
    ada = await town.person("ada abroad")
    topic = await ada.new_topic("Home", "Mine")
    page = (
        f'<form method=post action="{town.url}/topics/{topic}/posts">'
        "<input name=body value=theirs><button>Win</button></form>"
    )
    await ada.page.route(
        "http://elsewhere.test/", lambda r: r.fulfill(body=page, content_type="text/html")
    )
    await ada.page.goto("http://elsewhere.test/")
    await ada.page.get_by_role("button").click()
    await expect(ada.page.get_by_text("You may not do this.")).to_be_visible()
    cookies = {COOKIE: town.site.installation.token("ada abroad")}
    async with httpx2.AsyncClient(base_url=town.url, cookies=cookies) as client:
        for headers in (
            {},
            {"origin": "http://elsewhere.test"},
            {"origin": "null"},
            {"origin": town.url, "sec-fetch-site": "cross-site"},
            {"origin": town.url, "sec-fetch-site": "same-site"},
        ):
            data = {"body": "theirs", "key": str(uuid.uuid4())}
            answer = await client.post(f"/topics/{topic}/posts", data=data, headers=headers)
            assert answer.status_code == 403, headers
    await ada.go(f"/topics/{topic}")
    assert await ada.texts() == ["Mine"]
    ada.troubles[:] = [t for t in ada.troubles if "status of 403" not in t]
