"""The overlay's state machine on a real server: any interleaving, any repeats, and a model beside it.

The model says what each entry may be after each step; the server must agree. In the end the writer
settles everything, the grace passes, and nothing of any command is left under any key.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter
from redis.asyncio import Redis

from frontend_api.overlay import Laid, Overlay
from frontend_api.planning import Effect, Planned, public_part, scopes_of, shared_scopes_of
from frontend_api.redis_access import RedisAccess
from schema.catalog import load_catalog
from schema.commands import Command
from schema.overlay import SETTLED, EntryState
from schema.redis_keys import SHARED, RedisKeys, short_id
from tests.commands import author, command, create, reaction, topic_with_post
from tests.installation import fresh_name
from tests.services import Services
from writer.overlay import SettledOverlay, Settlement

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

CATALOG = load_catalog("tests.content_open")
ADA, EVE = author("ada", "moderator"), author("eve")
RANK = {
    EntryState.UNCONFIRMED: 0,
    EntryState.PENDING: 1,
    EntryState.PARKED: 2,
    EntryState.SAVED: 3,
    EntryState.REJECTED: 3,
}
STEPS = ["put", "confirm", "lay", "share", "park", "save", "reject", "sweep", "withdraw", "restore"]


@dataclass
class Known:
    """What the model knows of one command in one overlay. `state` None: there is nothing."""

    state: EntryState | None = None
    payload: bool = False
    due: bool = False


@dataclass
class World:
    """Three commands of two authors: a public one, one that is partly public, and a private one."""

    overlay: Overlay
    writer: SettledOverlay
    keys: RedisKeys
    redis: "Redis"
    commands: list[Command] = field(default_factory=list)
    known: dict[tuple[uuid.UUID, uuid.UUID], Known] = field(default_factory=dict)
    ended: dict[uuid.UUID, EntryState] = field(default_factory=dict)

    def __post_init__(self) -> None:
        topic, post = topic_with_post()
        emoji = reaction(post.id, EVE, "x")
        more = create("post", topic_id=str(topic.id), body="b")
        self.commands = [
            command(ADA, topic, post, key="k", fingerprint="f"),
            command(EVE, more, emoji, stream=topic.id),
            command(EVE, reaction(more.id, EVE, "y"), stream=topic.id),
        ]

    def effects(self, of: Command) -> list[Effect]:
        found = []
        for mutation in of.mutations:
            kind = CATALOG[mutation.type]
            row = kind.from_json(mutation.values)
            found.append(Effect(Planned(kind, mutation), None, row, before_known=True))
        return found

    def laid(self, of: Command) -> Laid:
        return Laid(of, scopes_of(CATALOG, self.keys, of, self.effects(of)), (0, 7))

    def shared(self, of: Command) -> Laid | None:
        public = public_part(CATALOG, of)
        if public is None:
            return None
        return Laid(
            public, shared_scopes_of(CATALOG, self.keys, of, self.effects(of)), (0, 7), SHARED
        )

    def at(self, owner: uuid.UUID, of: Command) -> Known:
        return self.known.setdefault((owner, of.command_id), Known())

    async def step(self, what: str, of: Command) -> None:
        own, others = self.at(of.author.id, of), self.at(SHARED, of)
        if what in ("park", "save", "reject"):
            await self._settle(what, of, own, others)
        else:
            await getattr(self, f"_{what}")(of, own, others)

    async def _put(self, of: Command, own: Known, _: Known) -> None:
        await self.overlay.put(of, self.laid(of).scopes)
        if own.state is None:
            own.state, own.payload = EntryState.UNCONFIRMED, True

    async def _confirm(self, of: Command, own: Known, _: Known) -> None:
        assert await self.overlay.confirm(of, 0, 7) is (own.state is not None)
        if own.state is EntryState.UNCONFIRMED:
            own.state = EntryState.PENDING

    async def _lay(self, of: Command, own: Known, _: Known) -> None:
        # Half a grace after it was accepted it is too late: after that it may have been swept.
        late = of.command_id in self.ended and own.state is None
        at = of.accepted_at - timedelta(hours=1) if late else of.accepted_at
        laid = replace(self.laid(of), command=replace(of, accepted_at=at))
        assert await self.overlay.lay(laid) is not late
        self._confirmed(own, late=late)

    async def _share(self, of: Command, _: Known, others: Known) -> None:
        shared, late = self.shared(of), of.command_id in self.ended and others.state is None
        if shared is not None and not late:
            assert await self.overlay.lay(shared)
            self._confirmed(others, late=False)

    async def _sweep(self, *_: object) -> None:
        await self.writer.sweep()
        for known in self.known.values():
            if known.due:
                known.state, known.payload, known.due = None, False, False

    async def _withdraw(self, of: Command, own: Known, _: Known) -> None:
        await self.overlay.withdraw(of)
        if own.state is EntryState.UNCONFIRMED:
            own.state, own.payload = None, False

    async def _settle(self, what: str, of: Command, own: Known, others: Known) -> None:
        told = {"park": EntryState.PARKED, "save": EntryState.SAVED, "reject": EntryState.REJECTED}
        state = self.ended.get(of.command_id, told[what])  # the ledger never takes it back
        both: list[tuple[uuid.UUID, Known]] = [(of.author.id, own)]
        both += [(SHARED, others)] if public_part(CATALOG, of) is not None else []
        await self.writer.settle(
            [Settlement(owner, of.command_id, state, 0, 7) for owner, _ in both]
        )
        for _, known in both:
            if state in SETTLED:
                known.due = True
                known.state = known.state if known.state in SETTLED else state
            elif known.state is not None and known.state not in SETTLED:
                known.state = state
        if state in SETTLED:
            self.ended[of.command_id] = state

    async def _restore(self, of: Command, own: Known, _: Known) -> None:
        """What a rebuild does with a command that the ledger calls undecided."""
        if of.command_id in self.ended and own.state is None:
            return
        await self.overlay._redis.run(
            *self.overlay.restoring(self.laid(of), EntryState.PENDING, anew=True)
        )
        if own.state in (None, EntryState.UNCONFIRMED):
            own.state = EntryState.PENDING
        own.payload = own.payload or own.state is not EntryState.REJECTED

    @staticmethod
    def _confirmed(known: Known, *, late: bool) -> None:
        if known.state is None and not late:
            known.state, known.payload = EntryState.PENDING, True
        elif known.state is EntryState.UNCONFIRMED:
            known.state = EntryState.PENDING

    async def look(self, before: dict[Any, Known]) -> None:
        """The server agrees with the model, and nothing went backwards."""
        for of in self.commands:
            for owner in (of.author.id, SHARED):
                known = self.at(owner, of)
                entries, id_ = self.keys.entries(owner), short_id(of.command_id)
                state, payload = await self.redis.hmget(entries, [f"{id_}:s", id_])
                told = None if state is None else EntryState(str(state).split("|")[0])
                assert (told, payload is not None) == (known.state, known.payload)
                was = before.get((owner, of.command_id), Known()).state
                if was is not None and told is not None:
                    assert RANK[told] >= RANK[was]
                members = await self.redis.zrange(self.keys.index(owner), 0, -1)
                mine = [m for m in members if str(m).endswith(id_)]
                assert bool(mine) is known.payload
        await self._never_shared(self.commands[2])

    async def _never_shared(self, private: Command) -> None:
        fields = await self.redis.hkeys(self.keys.entries(SHARED))
        members = await self.redis.zrange(self.keys.index(SHARED), 0, -1)
        assert not [t for t in (*fields, *members) if short_id(private.command_id) in t]

    async def end(self) -> None:
        """The writer tells of everything, the grace passes: nothing is left under any key."""
        for of in self.commands:
            await self.step("save", of)
        await self.step("sweep", self.commands[0])
        left = [key async for key in self.redis.scan_iter(f"{self.keys.prefix}:*", count=1000)]
        assert left == []


@pytest.fixture
async def redis(services: Services) -> AsyncIterator["Redis"]:
    async with Redis.from_url(services.redis_url, decode_responses=True) as redis:
        yield redis


def test_no_interleaving_moves_a_state_back_or_leaves_a_trace(services: Services) -> None:
    loop = asyncio.new_event_loop()

    @settings(
        max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 2)), max_size=25))
    def any_interleaving(steps: list[tuple[str, int]]) -> None:
        loop.run_until_complete(_play(services, steps))

    try:
        any_interleaving()
    finally:
        loop.close()


async def _play(services: Services, steps: list[tuple[str, int]]) -> None:
    keys = RedisKeys(fresh_name())
    failures = Counter("failures", "for a test", registry=CollectorRegistry())
    access = RedisAccess(services.redis_url, 10.0, failures)
    writer = SettledOverlay(services.redis_url, keys, 0)
    try:
        async with Redis.from_url(services.redis_url, decode_responses=True) as redis:
            world = World(Overlay(access, keys, catalog=CATALOG), writer, keys, redis)
            for what, which in steps:
                before = {at: replace(known) for at, known in world.known.items()}
                if what == "sweep":
                    before = {at: known for at, known in before.items() if not known.due}
                await world.step(what, world.commands[which])
                await world.look(before)
            await world.end()
    finally:
        await writer.close()
        await access.close()
