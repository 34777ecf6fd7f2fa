"""Every read of many authors, judged, while servers are paused, killed and made to forget.

The large trial is a command: `python -m tests.trials.reads --help`. Here is a small one, and the proof
that the checker sees what it is there to see: bugs planted in the API processes.
"""

import json
from pathlib import Path

import pytest

from tests.acceptance.helpers import figure
from tests.installation import Installation, fresh_name
from tests.replica import replica_of
from tests.services import Services
from tests.trials.campaign import Campaign, Plan, Result

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]


async def trial(installation: Installation, plan: Plan) -> Result:
    async with replica_of(installation.services) as replica:
        return await Campaign(plan, installation, replica).run()


async def test_every_read_is_right_whatever_is_down(installation: Installation) -> None:
    plan = Plan(authors=10, changes=30, seed=2, seconds=60, think_s=0.2, gap_s=0.7)
    result = await trial(installation, plan)
    figures = result.figures()
    figure("trial", json.dumps({k: v for k, v in figures.items() if k != "examples"}))
    assert result.passed, json.dumps(figures, indent=2)
    assert figures["reads_by_state"]["exact"] > 300
    assert sum(result.record.faults.values()) >= 3
    assert figures["saved"] > 100


@pytest.mark.parametrize(
    ("bug", "wrong"),
    [
        ("no-ledger", {"wrong_version", "wrong_count"}),
        ("anothers-overlay", {"leaked", "missing"}),
        ("no-counts", {"wrong_count"}),
        ("swept-early", {"missing"}),
    ],
)
async def test_a_planted_bug_is_found_and_called_by_its_name(
    services: Services, tmp_path: Path, bug: str, wrong: set[str]
) -> None:
    """The writers are paused again and again, so that there is always something pending.

    Every trial finds the bug; by which of its names first is a matter of time.
    """
    found: set[str] = set()
    for seed in range(7, 12):
        plan = Plan(
            authors=5,
            changes=10,
            seed=seed,
            seconds=40,
            think_s=0.1,
            gap_s=0.1,
            faults={"writer paused": 1},
            rejections=False,
            planted=bug,
        )
        folder = tmp_path / str(seed)
        folder.mkdir()
        installation = Installation(services, fresh_name(), folder)
        await installation.create()
        try:
            result = await trial(installation, plan)
        finally:
            await installation.destroy()
        figure(bug, result.verdict.by_kind())
        assert not result.passed
        found |= set(result.verdict.by_kind())
        if wrong <= found:
            return
    assert wrong <= found
