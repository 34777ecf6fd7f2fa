"""The measurements over HTTP run, once and small: they find the references beside the real thing,
and what was accepted in the database. Their figures mean nothing here."""

import sys

import pytest

from tests.bench.http_ground import shared_ground
from tests.bench.registry import load
from tests.bench.result import Result
from tests.bench.rig import Bench
from tests.services import Services

pytestmark = [pytest.mark.acceptance, pytest.mark.alone, pytest.mark.timeout(120)]


async def test_they_run_side_by_side_and_what_was_accepted_is_verified(services: Services) -> None:
    with Bench(quick=True, say=say, services=services) as bench:
        async with shared_ground(bench):
            for name in ("A1", "A2", "R1", "R2", "E1"):
                must_be_whole(name, await load(name)(bench))


def say(line: str) -> None:
    sys.stdout.write(line + "\n")


def must_be_whole(name: str, result: Result) -> None:
    assert result.name == name
    assert result.verified
    assert result.ratio is not None
    assert all(figure > 0 for figures in result.samples.values() for figure in figures)
