"""The merge held against a model, on a real server: its scripts, its marker, and the real rebuild.

Log and database are the model's, so that a replica may lag by any amount.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from prometheus_client import CollectorRegistry, Counter, Gauge
from redis.asyncio import Redis

from frontend_api import reading
from frontend_api.idempotency import Idempotency
from frontend_api.overlay import Overlay
from frontend_api.overlay_marker import Marker
from frontend_api.overlay_rows import RowRef
from frontend_api.rebuild import Rebuilder
from frontend_api.rebuild_entries import RebuildEntries
from frontend_api.rebuild_ledger import Parked, Told
from frontend_api.redis_access import RedisAccess
from frontend_api.view import LanePosition
from schema.commands import Command
from schema.envelope import Keyring, Record, headers_to_json
from schema.outcomes import Outcome
from schema.overlay import SWEEP, EntryState
from schema.redis_keys import RedisKeys, short_id
from schema.scopes import Scope
from schema.telemetry import configure_logging
from tests.fakes import SECRET
from tests.overlay_machine import OverlayMachine
from tests.overlay_reads import CATALOG, OverlayUnderTest
from tests.overlay_world import Sent, World
from tests.services import Services
from writer.overlay import SettledOverlay, Settlement

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

GRACE_S = 600.0
STATES = {
    Outcome.SAVED: EntryState.SAVED,
    Outcome.REJECTED: EntryState.REJECTED,
    Outcome.PARKED: EntryState.PARKED,
}


@dataclass
class _Log:
    """The model's log, as the rebuild reads it."""

    written: list[Record]
    lately: int = 0
    """The first offset that a rebuild takes for less than the grace old."""

    @asynccontextmanager
    async def open(self) -> AsyncIterator["_Log"]:
        yield self

    async def hint(self) -> Mapping[int, int]:
        return {}

    async def bounds(self) -> dict[int, tuple[int, int]]:
        return {0: (0, len(self.written))}

    async def since(self, ago_s: float) -> dict[int, int]:
        return {0: self.lately}

    async def records(self, lane: int, from_: int, to: int) -> AsyncIterator[list[Any]]:
        for at in range(from_, to):
            r = self.written[at]
            yield [SimpleNamespace(offset=at, key=r.key, value=r.value, headers=r.headers)]


@dataclass
class _Ledger:
    """What the model's database says, of the state that is seen."""

    world: World
    log: _Log

    async def positions(self) -> dict[int, LanePosition]:
        return {0: LanePosition(self.world.history[self.world.seen].position, 0)}

    async def parked(self, lane: int, after: int, limit: int) -> list[Parked]:
        ledger = self.world.history[self.world.seen].ledger.values()
        offsets = sorted(at for at, outcome in ledger if outcome is Outcome.PARKED and at > after)
        return [self._parked(at) for at in offsets[:limit]]

    def _parked(self, offset: int) -> Parked:
        record = self.log.written[offset]
        return Parked(0, offset, record.key, record.value, headers_to_json(record.headers))

    async def tell(self, commands: Iterable[uuid.UUID], rows: Iterable[RowRef] = ()) -> Told:
        state = self.world.history[self.world.seen]
        outcomes = {
            command: {
                "outcome": state.ledger[command][1],
                "lane": 0,
                "offset": state.ledger[command][0],
                "effects": state.effects.get(command, []),
            }
            for command in commands
            if command in state.ledger
        }
        found = {ref: state.rows.get((ref[0], uuid.UUID(str(ref[1])))) for ref in rows}
        return Told(await self.positions(), outcomes, found)


class _InRedis(Overlay):
    """The real overlay, and what the writer and an accident do to it."""

    def __init__(self, url: str, prefix: str, world: World, log: _Log) -> None:
        def counter() -> Counter:
            return Counter("c", "for a test", registry=CollectorRegistry())

        self.raw: Any = Redis.from_url(url)
        self.log = log
        self.since_loss: set[uuid.UUID] = set()
        """Commands whose entries stand without a rebuild."""
        self.access = RedisAccess(url, 5.0, counter())
        self.keys = RedisKeys(prefix)
        self.writer = SettledOverlay(url, self.keys, GRACE_S)
        marker = Marker(
            self.access, self.keys, Gauge("g", "for a test", registry=CollectorRegistry())
        )
        super().__init__(self.access, self.keys, marker, catalog=CATALOG, grace_s=GRACE_S)
        claims = Idempotency(self.access, self.keys, 0, 60)
        self.rebuilder = Rebuilder(
            marker=marker,
            entries=RebuildEntries(self.access, self.keys, self, claims, GRACE_S),
            log=log,  # type: ignore[arg-type]
            ledger=_Ledger(world, log),  # type: ignore[arg-type]
            database=world,
            catalog=CATALOG,
            keys=self.keys,
            keyring=Keyring.parse(f"k1:{SECRET}"),
            grace_s=GRACE_S,
            owed=set(),
            on_unconfirmed=lambda entry: None,
            rebuilds=counter(),
        )

    async def settle_as(self, sent: Sent, outcome: Outcome) -> None:
        command = sent.command
        await self.writer.settle(
            [
                Settlement(
                    command.author.id, command.command_id, STATES[outcome], 0, sent.offset or 0
                )
            ]
        )

    async def sweep_away(self, sent: Sent) -> None:
        author = sent.command.author.id
        keys = [self.keys.entries(author), self.keys.index(author)]
        await self.access.run(SWEEP, keys, [short_id(sent.command.command_id)])

    async def forget_all(self) -> None:
        self.since_loss.clear()
        async for key in self.raw.scan_iter(f"{self.keys.prefix}:*"):
            await self.raw.delete(key)

    async def restored(self, found: Mapping[Sent, Outcome | None]) -> set[Sent]:
        """The real rebuild. What was swept, but saved lately, comes back as saved."""
        self.log.lately = max(0, len([s for s, outcome in found.items() if outcome]) - 8)
        await self.rebuilder._look()
        return {
            s
            for s, outcome in found.items()
            if outcome in (None, Outcome.PARKED)
            or (outcome is Outcome.SAVED and (s.offset or 0) >= self.log.lately)
            or (outcome is Outcome.SAVED and s.command.command_id in self.since_loss)
        }

    async def put(self, command: Command, scopes: Sequence[Scope]) -> None:
        self.since_loss.add(command.command_id)
        await super().put(command, scopes)

    async def end(self) -> None:
        await self.forget_all()
        await self.raw.aclose()
        await self.writer.close()
        await self.access.close()


class InRedisMachine(OverlayMachine):
    url = ""

    def open_overlay(self) -> OverlayUnderTest:
        overlay = _InRedis(self.url, self.prefix, self.world, _Log(self.log.records))
        asyncio.set_event_loop(self.loop)
        self.run(overlay.restored({}))  # the first process finds no marker
        return overlay


def test_the_view_equals_the_model(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_SPARE_MEMBERS", 1)
    configure_logging("error", "json")
    monkeypatch.setattr(InRedisMachine, "url", services.redis_url)
    run_state_machine_as_test(
        InRedisMachine,
        settings=settings(
            max_examples=20,
            derandomize=True,
            stateful_step_count=30,
            deadline=None,
            phases=[Phase.explicit, Phase.reuse, Phase.generate],  # to shrink takes minutes
            suppress_health_check=list(HealthCheck),
        ),
    )
