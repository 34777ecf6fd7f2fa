"""What the tests of operation share: letters made by the real writer, acts, and what they are done with."""

import asyncio
import io
import logging
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from deploy.cli import main
from schema import clock
from schema.acts import Act, ActKind, Letters, Operator
from schema.catalog import load_catalog
from schema.commands import Command
from schema.envelope import Record
from schema.identifiers import new_id
from schema.settings import WriterSettings
from tests.commands import KEYRING, publish, sealed
from tests.installation import Installation, eventually_async
from writer.applier import Applier
from writer.flush import Flusher
from writer.lane import take_lane
from writer.loader import Loader
from writer.mass_rejection import MassRejection
from writer.operation.connecting import connected
from writer.operation.perform import Tools
from writer.parking import ParkPolicy
from writer.publisher import OutcomePublisher
from writer.record import read_record
from writer.statements import Statements

FORUM = load_catalog("schema.forum")
STATEMENTS = {kind.name: Statements.of(kind) for kind in FORUM}

OLGA = Operator(uuid.UUID(int=7), "Olga", ("operator",))


def act(kind: ActKind, *places: tuple[int, int], who: Operator = OLGA, **more: Any) -> Act:
    if places:
        more["letters"] = Letters(places=places)
    return Act(new_id(), kind, who, clock.now(), **more)


@dataclass(frozen=True)
class Ended:
    """What a command printed, and its exit code."""

    returncode: int
    stdout: str
    stderr: str


class Program:
    """The program itself, called in this process: what it prints, without the second that a new process
    takes to start. Its errors and exit codes go through the same `main`."""

    def __init__(self, installation: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
        self._installation = installation
        self._patch = monkeypatch

    async def __call__(self, *words: str) -> Ended:
        for name, value in self._installation.environment().items():
            self._patch.setenv(name, value)
        self._patch.setattr(sys, "argv", ["afterwrite", *words])
        out, err = _Captured(), _Captured()
        level = logging.root.manager.disable
        try:
            with redirect_stdout(out), redirect_stderr(err):
                code = await asyncio.to_thread(_main)
        finally:
            logging.disable(level)
        return Ended(code, out.text, err.text)


class _Captured(io.TextIOWrapper):
    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", write_through=True)

    @property
    def text(self) -> str:
        self.seek(0)
        return self.read()


def _main() -> int:
    try:
        main()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0


@asynccontextmanager
async def tools_of(installation: Installation) -> AsyncIterator[Tools]:
    """With the writer's rights, which must be enough."""
    publisher = OutcomePublisher(installation.services.kafka_bootstrap)
    async with connected(installation.writer_url) as connection:
        try:
            topic = f"{installation.name}.commands"
            yield Tools(connection, publisher, KEYRING, FORUM, topic, installation.lanes)
        finally:
            await publisher.close()


async def applied(installation: Installation, *what: Command | Record) -> None:
    """Let the writer's own code decide commands (or bytes that are none), without a log or a process."""
    async with connected(installation.writer_url) as connection:
        lane = await take_lane(connection, 0, "test", timedelta(minutes=1))
        assert lane is not None
        records = []
        for offset, one in enumerate(what, lane.position):
            bytes_ = sealed(one, lane.log_id) if isinstance(one, Command) else one
            records.append(
                read_record(0, offset, 0, bytes_.key, bytes_.value, bytes_.headers, KEYRING)
            )
        applier = Applier(
            connection=connection,
            catalog=FORUM,
            keyring=KEYRING,
            lane=lane,
            loader=Loader(connection, FORUM, KEYRING, 0, STATEMENTS),
            flusher=Flusher(connection, FORUM, STATEMENTS, frozenset()),
            policy=ParkPolicy.of(WriterSettings.model_construct()),
            refusals=MassRejection(20),
        )
        await applier.apply(records)
        await lane.release(connection)


async def sent(installation: Installation, *commands: Command) -> None:
    """Put commands into the log and wait until all of it is decided."""
    log_id = await installation.value("SELECT log_id FROM afterwrite.lane WHERE lane = 0")
    topic = f"{installation.name}.commands"
    records = [sealed(command, log_id) for command in commands]
    await publish(installation.services.kafka_bootstrap, topic, records, installation.lanes)
    for command in commands:
        await decided(installation, command.command_id)


async def decided(installation: Installation, command_id: uuid.UUID | str) -> str:
    """Wait until the ledger has a command; its outcome."""
    query = "SELECT outcome FROM afterwrite.ledger WHERE command_id = $1"
    rows: list[asyncpg.Record] = []

    async def there() -> bool:
        rows[:] = await installation.fetch(query, uuid.UUID(str(command_id)))
        return bool(rows)

    await eventually_async(there, 20, f"command {command_id} to be decided")
    outcome: str = rows[0]["outcome"]
    return outcome
