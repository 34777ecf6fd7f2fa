"""The benchmark runs on real servers, says what it must, and does not believe a fast wrong run."""

import json
from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest

from tests.bench.draining import expected, verify
from tests.bench.drains import against_sink
from tests.bench.prepared import Ground, Plan, ground
from tests.bench.references import copy_limit
from tests.bench.result import WrongRun
from tests.bench.rig import Bench
from tests.bench.workload import FIRST
from tests.services import Services

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(240)]
PLAN = Plan("creates", 50)


@pytest.fixture(scope="module")
def bench(services: Services) -> Iterator[Bench]:
    with Bench(quick=True, services=services) as made:
        yield made


@pytest.fixture
async def copied(bench: Bench) -> AsyncIterator[tuple[Ground, asyncpg.Connection]]:
    """A fresh copy of the template with the rows of a plan in it, put there by nobody's command."""
    prepared = await ground(bench)
    async with prepared.copy() as installation:
        connection = await asyncpg.connect(installation.owner_url)
        rows = [copy_limit.row(prepared.origin, n) for n in range(FIRST, FIRST + PLAN.count)]
        await connection.copy_records_to_table("post", records=rows, columns=copy_limit.COLUMNS)
        yield prepared, connection
        await connection.close()


async def test_a_quick_run_has_all_that_is_promised(bench: Bench) -> None:
    """D1 drains the same rows with a real writer and a real sink, and checks them."""
    result = await against_sink(bench)
    told = json.loads(json.dumps(result.to_json()))
    assert told["name"] == "D1"
    assert told["goal"] == "≥ 1.5"
    assert set(told["ratio"]) == {"min", "median", "max"}
    assert told["met"] is (min(told["ratio"]["median"], _late(told)) >= 1.5)
    assert told["samples"]["afterwrite"][0] > 0
    assert told["samples"]["sink, batch 3,000"][0] > 0
    assert told["cpu_s"]["afterwrite: writer"] > 0
    assert told["cpu_s"]["sink, batch 3,000: connect"] > 0


def _late(told: dict[str, dict[str, list[float]]]) -> float:
    samples = told["samples"]
    ours, theirs = samples["afterwrite, second half"], samples["sink, batch 3,000, second half"]
    return ours[0] / theirs[0]


FAULTS = {
    "lost": (
        "DELETE FROM post WHERE id = (SELECT id FROM post ORDER BY id LIMIT 1)",
        "rows of post",
    ),
    "altered": (
        "UPDATE post SET body = body || '!' WHERE id = (SELECT max(id::text)::uuid FROM post)",
        "contents of post",
    ),
    "title": (
        "UPDATE topic SET title = 'Another' WHERE id = (SELECT id FROM topic LIMIT 1)",
        "contents of topic",
    ),
    "exchanged": (
        "WITH two AS (SELECT id, body, row_number() OVER (ORDER BY id) AS n FROM post LIMIT 2) "
        "UPDATE post SET body = other.body FROM two own, two other "
        "WHERE post.id = own.id AND own.n <> other.n",
        "contents of post",
    ),
}


async def test_a_wrong_run_fails_however_fast(
    copied: tuple[Ground, asyncpg.Connection],
) -> None:
    """Rows that are right are believed, before each fault and when it is undone."""
    prepared, connection = copied
    for fault, said in FAULTS.values():
        await verify(connection, expected(prepared, PLAN), ledger=False)
        planted = connection.transaction()
        await planted.start()
        try:
            await connection.execute(fault)
            with pytest.raises(WrongRun, match=said):
                await verify(connection, expected(prepared, PLAN), ledger=False)
        finally:
            await planted.rollback()


async def test_of_ours_the_ledger_must_agree(copied: tuple[Ground, asyncpg.Connection]) -> None:
    """Rows that no command has put there count for a reference, not for a writer."""
    prepared, connection = copied
    with pytest.raises(WrongRun, match="post_count"):
        await verify(connection, expected(prepared, PLAN), ledger=True)
    await connection.execute(
        "UPDATE topic t SET post_count = (SELECT count(*) FROM post p WHERE p.topic_id = t.id)"
    )
    with pytest.raises(WrongRun, match="outcomes"):
        await verify(connection, expected(prepared, PLAN), ledger=True)
