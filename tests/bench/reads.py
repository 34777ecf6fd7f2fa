"""R1 and R2: a page of posts, beside one that was written by hand for its table."""

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import asyncpg

from schema.identifiers import new_row_id
from tests.bench.http_client import Plan, Sender
from tests.bench.http_ground import OURS, ground
from tests.bench.http_ground import PAGE as BY_HAND
from tests.bench.http_load import (
    CHARS,
    PARSER,
    Served,
    bodies,
    load,
    must_be_clean,
    must_be_saved,
    nearest_rank,
)
from tests.bench.result import Result, WrongRun, ratios
from tests.bench.rig import Bench, add_up, median

PAGE, PENDING = 50, 50
WAITING = f"{OURS}, {PENDING} pending"


@dataclass
class Pages:
    """The runs that R1 and R2 are both read from: p50 of a page in milliseconds."""

    p50_ms: dict[str, list[float]] = field(default_factory=dict)
    p99_ms: dict[str, list[float]] = field(default_factory=dict)
    cpu_s: dict[str, float] = field(default_factory=dict)


async def _pages(bench: Bench) -> Pages:
    found = bench.memory.get("pages")
    if isinstance(found, Pages):
        return found
    pages = Pages()
    async with ground(bench) as side_by_side:
        installation, api = side_by_side.ours, side_by_side.api
        whole, half = await side_by_side.site.add_topics(installation.owner_url, 2)
        authors = side_by_side.site.authors
        await _write(installation.owner_url, authors, whole, PAGE * 3 // 2)
        await _write(installation.owner_url, authors, half, PAGE // 2)
        by_hand = await side_by_side.server(BY_HAND)
        # Of no reader anything is pending, or was lately, but what is said.
        reader, waiter = (installation.token(name) for name in ("a reader", "one who waits"))
        runs = (
            (BY_HAND, by_hand, whole, reader),
            (OURS, api, whole, reader),
            (WAITING, api, half, waiter),
        )
        async with side_by_side.paused():
            wanted = bodies(await _leave_pending(api, Sender(f"/v1/topics/{half}/posts", waiter)))
            for repeat in range(bench.repeats):
                shown: dict[str, list[dict[str, object]]] = {}
                for who, server, topic, token in runs:
                    shown[who] = await _read(bench, pages, who, server, topic, token)
                _must_be_alike(shown, list(wanted.items()))
                times = (f"{who} {pages.p50_ms[who][-1]:.2f} ms" for who, *_ in runs)
                bench.say(f"  {repeat + 1}: {', '.join(times)}")
        await must_be_saved(installation.owner_url, wanted)
    bench.memory["pages"] = pages
    return pages


async def _write(url: str, authors: Sequence[uuid.UUID], topic: uuid.UUID, count: int) -> None:
    """Posts that have been there for long."""
    now = datetime.now(UTC)
    connection = await asyncpg.connect(url)
    try:
        await connection.executemany(
            "INSERT INTO post (id, version, created_at, updated_at, topic_id, author_id, body) "
            "VALUES ($1, 1, $2, $2, $3, $4, $5)",
            [
                (
                    uuid.UUID(int=new_row_id().int),
                    now,
                    topic,
                    authors[n % len(authors)],
                    f"Old post {n} ".ljust(CHARS, "."),
                )
                for n in range(count)
            ],
        )
        await connection.execute("UPDATE topic SET post_count = $2 WHERE id = $1", topic, count)
        await connection.execute("ANALYZE post")
    finally:
        await connection.close()


async def _leave_pending(api: Served, sender: Sender) -> list[tuple[int, str]]:
    """The author's posts that no writer is there to save."""
    plan = Plan(api.port, [sender], connections=1, seconds=PENDING / 100, rate=100, chars=CHARS)
    answers = must_be_clean(await load(plan), "the posts that are to be pending")
    if len(answers.accepted) != PENDING:
        raise WrongRun(f"{len(answers.accepted)} posts are pending instead of {PENDING}")
    return answers.accepted


async def _read(
    bench: Bench, pages: Pages, who: str, server: Served, topic: uuid.UUID, token: str
) -> list[dict[str, object]]:
    """One closed-loop run of one reader; the items of the last page."""
    plan = Plan(
        server.port,
        [Sender(f"/v1/topics/{topic}/posts?limit={PAGE}", token)],
        connections=1,
        seconds=0.5 if bench.quick else 2.0,
        warm_s=0.2,
        chars=0,
        expected=200,
    )
    meter = bench.meter(server=server.pid)
    answers = must_be_clean(await load(plan), who)
    used = meter.read() | {"client": answers.cpu_s}
    add_up(pages.cpu_s, {f"{who}: {name}": seconds for name, seconds in used.items()})
    pages.p50_ms.setdefault(who, []).append(1e3 * nearest_rank(answers.seconds, 50))
    pages.p99_ms.setdefault(who, []).append(1e3 * nearest_rank(answers.seconds, 99))
    page = json.loads(answers.last)
    if page.get("stale_s") is not None or page.get("overlay") is not None:
        raise WrongRun(f"{who}: the page is not whole: {set(page) - {'items'}}")
    items: list[dict[str, object]] = page["items"]
    return items


def _must_be_alike(
    shown: dict[str, list[dict[str, object]]], pending: Sequence[tuple[uuid.UUID, str]]
) -> None:
    """Ours shows what the other shows; with posts pending, those too, as they were sent."""
    names = ("id", "version", "topic_id", "author_id", "reply_to", "body", "reaction_count")
    ours, theirs = ([[item[n] for n in names] for item in shown[w]] for w in (OURS, BY_HAND))
    if ours != theirs or len(ours) != PAGE:
        raise WrongRun(f"the pages differ: {len(ours)} and {len(theirs)} posts")
    waiting = [item for item in shown[WAITING] if item["state"] == "pending"]
    found = [(uuid.UUID(str(item["id"])), item["body"]) for item in waiting]
    if len(shown[WAITING]) != PAGE or found != sorted(pending)[: PAGE - PAGE // 2]:
        raise WrongRun(f"{len(found)} pending posts are shown on a page of {len(shown[WAITING])}")


def _result(name: str, who: str, most: float, pages: Pages) -> Result:
    ratio = ratios(pages.p50_ms[who], pages.p50_ms[BY_HAND])
    pending = "50 pending of the author" if who == WAITING else "nothing pending"
    return Result(
        name=name,
        title=f"page of {PAGE} posts, {pending}: its time ÷ a page by hand (FastAPI, asyncpg)",
        goal=f"≤ {most:g}",
        met=ratio.median <= most,
        ratio=ratio,
        samples=pages.p50_ms,
        unit="ms, p50",
        cpu_s=pages.cpu_s,
        settings={
            "load": "one reader on one connection, closed loop",
            "servers": f"uvicorn, one process each, uvloop, {PARSER}",
            "page": f"{PAGE} posts of {CHARS} characters out of {PAGE * 3 // 2}; with posts pending, "
            f"{PAGE // 2} of them are saved and the others pending",
        },
        verified="both pages show the same posts; what was pending is shown as it was sent, and was "
        "saved by a writer afterwards",
        notes=[f"p99 of {w}: {median(pages.p99_ms[w]):.2f} ms" for w in pages.p99_ms],
    )


async def nothing_pending(bench: Bench) -> Result:
    """R1: the time of a page ÷ the hand-written page's."""
    return _result("R1", OURS, 1.25, await _pages(bench))


async def some_pending(bench: Bench) -> Result:
    """R2: the same with 50 pending of the author."""
    return _result("R2", WAITING, 2.0, await _pages(bench))
