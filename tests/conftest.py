"""Fixtures: servers once a run, an installation per test."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests import installation as installations
from tests.forking import Nursery
from tests.installation import Installation, fresh_name
from tests.services import FaultsImpossible, Services, start_services


@pytest.fixture(scope="session")
def services(request: pytest.FixtureRequest) -> Iterator[Services]:
    """PostgreSQL, Redis or Valkey, and Kafka. Which ones is said at the end of the run."""
    started = start_services()
    request.config.stash[_DESCRIBED] = started.described
    yield started
    started.stop()


_DESCRIBED = pytest.StashKey[str]()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    described = terminalreporter.config.stash.get(_DESCRIBED, "none were needed")
    terminalreporter.write_line(f"servers of this run: {described}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    try:
        return (yield)
    except FaultsImpossible:
        pytest.skip("SKIPPED FOR REAL: this test must stop a server, and these are not ours")


@pytest.fixture(scope="session", autouse=True)
def nursery() -> Iterator[None]:
    """Processes of ours need not read all their libraries for every test."""
    with Nursery() as made:
        installations.NURSERY = made
        yield
        installations.NURSERY = None


@pytest.fixture
async def installation(services: Services, tmp_path: Path) -> AsyncIterator[Installation]:
    """A migrated database, topics and a prefix of its own. Processes it starts end with the test."""
    made = Installation(services, fresh_name(), tmp_path)
    await made.create()
    yield made
    await made.destroy()


@pytest.fixture
async def database(installation: Installation) -> Installation:
    """The same, for tests that need only the database: `.owner_url`, `.writer_url`, …"""
    return installation
