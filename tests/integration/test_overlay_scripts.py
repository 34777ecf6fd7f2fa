"""The overlay's scripts on a real server: atomic, idempotent, and a state never goes backwards."""

import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from schema.overlay import (
    CONFIRM,
    LAY,
    PUT,
    SETTLE,
    SWEEP,
    WITHDRAW,
    EntryState,
    Status,
    index_prefix,
    pack,
)
from schema.redis_keys import RedisKeys, long_id, short_id
from tests.installation import fresh_name
from tests.services import Services
from writer.overlay import SettledOverlay, Settlement

pytestmark = pytest.mark.integration


class Overlay:
    """One author's overlay, changed by nothing but the scripts."""

    def __init__(self, redis: "Redis", prefix: str) -> None:
        self.redis = redis
        self.keys = RedisKeys(prefix)
        self.author = uuid.uuid4()
        self.topic = uuid.uuid4()
        self.entries, self.index = self.keys.entries(self.author), self.keys.index(self.author)
        self.both = [self.entries, self.index]

    def members(self, command: str) -> list[str]:
        """Those of a post in a topic."""
        own = [
            (f"row:post:{self.topic}", ""),
            (f"list:topic_posts:{self.topic}", "row:"),
            (f"count:topic:{self.topic}", "posts:1:"),
        ]
        return [index_prefix(name) + member for name, member in own]

    def payload(self, command: str) -> str:
        return pack(self.members(command), "{}")

    async def run(self, script: str, keys: list[str], *args: object) -> Any:
        answer: Any = await self.redis.eval(script, len(keys), *keys, *(str(a) for a in args))
        return answer

    async def put(self, command: str, payload: str = "") -> Any:
        text = payload or self.payload(command)
        return await self.run(PUT, self.both, command, text, *self.members(command))

    async def lay(self, command: str, lane: object = 0, offset: object = 5, until: str = "") -> Any:
        place, members = (lane, offset, until), self.members(command)
        return await self.run(LAY, self.both, command, self.payload(command), *place, *members)

    async def confirm(self, command: str, lane: object = 0, offset: object = 5) -> Any:
        return await self.run(CONFIRM, [self.entries], command, lane, offset)

    async def settle(
        self, command: str, state: str, lane: int = 0, offset: int = 5, tombstone: str = ""
    ) -> Any:
        return await self.run(SETTLE, [self.entries], command, state, lane, offset, tombstone)

    async def withdraw(self, command: str) -> Any:
        return await self.run(WITHDRAW, self.both, command)

    async def sweep(self, command: str) -> Any:
        return await self.run(SWEEP, self.both, command)

    async def status(self, command: str) -> Status | None:
        text = await self.redis.hget(self.entries, f"{command}:s")
        return None if text is None else Status.parse(str(text))

    async def state(self, command: str) -> EntryState | None:
        found = await self.status(command)
        return None if found is None else found.state

    async def has_members(self, *commands: str) -> None:
        """Nothing but these commands is in the index."""
        found = await self.redis.zrange(self.index, 0, -1, withscores=True)
        wanted = [(member + command, 0) for command in commands for member in self.members(command)]
        assert list(map(tuple, found)) == sorted(wanted)

    async def everything(self) -> dict[str, Any]:
        """All keys of this prefix and what they hold."""
        found: dict[str, Any] = {}
        async for key in self.redis.scan_iter(f"{self.keys.prefix}:*"):
            kind = await self.redis.type(key)
            if kind == "hash":
                found[key] = await self.redis.hgetall(key)
            elif kind == "zset":
                found[key] = await self.redis.zrange(key, 0, -1, withscores=True)
            else:
                found[key] = await self.redis.get(key)
        return found


@pytest.fixture
async def overlay(services: Services) -> AsyncIterator[Overlay]:
    async with Redis.from_url(services.redis_url, decode_responses=True) as redis:
        yield Overlay(redis, fresh_name())


# -- the way of an entry ---------------------------------------------------------------------------


async def test_a_new_entry_is_unconfirmed_and_indexed(overlay: Overlay) -> None:
    assert await overlay.put("c1") == "unconfirmed|1||"
    assert await overlay.status("c1") == Status(EntryState.UNCONFIRMED, 1)
    await overlay.has_members("c1")


async def test_entries_are_numbered_in_the_order_of_acceptance(overlay: Overlay) -> None:
    for number, command in enumerate(["b", "c", "a"], 1):
        await overlay.put(command)
        status = await overlay.status(command)
        assert status is not None
        assert status.seq == number
    await overlay.has_members("a", "b", "c")


async def test_putting_twice_changes_nothing(overlay: Overlay) -> None:
    await overlay.put("c1")
    before = await overlay.everything()
    assert await overlay.put("c1", payload="another") == "unconfirmed|1||"
    assert await overlay.everything() == before
    await overlay.confirm("c1")
    assert await overlay.put("c1") == "pending|1|0|5"
    assert await overlay.state("c1") is EntryState.PENDING


async def test_confirming_says_where_it_is_in_the_log(overlay: Overlay) -> None:
    await overlay.put("c1")
    assert await overlay.confirm("c1", 2, 77) == "pending|1|2|77"
    assert await overlay.status("c1") == Status(EntryState.PENDING, 1, 2, 77)
    assert await overlay.confirm("c1", 2, 99) == "pending|1|2|77", "the first place counts"


async def test_confirming_without_a_place_keeps_it_open(overlay: Overlay) -> None:
    await overlay.put("c1")
    await overlay.confirm("c1", "", "")
    assert await overlay.status("c1") == Status(EntryState.PENDING, 1)


ORDER = [
    EntryState.UNCONFIRMED,
    EntryState.PENDING,
    EntryState.PARKED,
    EntryState.SAVED,
    EntryState.REJECTED,
]
FINAL = [EntryState.SAVED, EntryState.REJECTED]


async def _bring_to(overlay: Overlay, state: EntryState) -> None:
    await overlay.put("c1")
    if state is not EntryState.UNCONFIRMED:
        await overlay.confirm("c1")
    if state not in (EntryState.UNCONFIRMED, EntryState.PENDING):
        await overlay.settle("c1", state.value)
    assert await overlay.state("c1") is state


@pytest.mark.parametrize("state", ORDER)
async def test_a_late_confirmation_moves_nothing_back(overlay: Overlay, state: EntryState) -> None:
    await _bring_to(overlay, state)
    await overlay.confirm("c1", 0, 9)
    wanted = EntryState.PENDING if state is EntryState.UNCONFIRMED else state
    assert await overlay.state("c1") is wanted


@pytest.mark.parametrize("state", ORDER)
@pytest.mark.parametrize("told", ["parked", "saved", "rejected"])
async def test_an_outcome_is_taken_unless_there_is_a_final_one(
    overlay: Overlay, state: EntryState, told: str
) -> None:
    await _bring_to(overlay, state)
    await overlay.settle("c1", told)
    wanted = state if state in FINAL else EntryState(told)
    assert await overlay.state("c1") is wanted
    before = await overlay.everything()
    await overlay.settle("c1", told)
    assert await overlay.everything() == before, "telling it again changes nothing"


@pytest.mark.parametrize("state", ORDER)
async def test_only_what_never_reached_the_log_is_taken_back(
    overlay: Overlay, state: EntryState
) -> None:
    await _bring_to(overlay, state)
    before = await overlay.everything()
    withdrawn = await overlay.withdraw("c1")
    if state is EntryState.UNCONFIRMED:
        assert withdrawn == 1
        assert await overlay.everything() == {}
        assert await overlay.withdraw("c1") == 0
    else:
        assert withdrawn == 0
        assert await overlay.everything() == before


@pytest.mark.parametrize("state", ORDER)
async def test_only_what_is_settled_is_swept_and_then_without_a_trace(
    overlay: Overlay, state: EntryState
) -> None:
    await _bring_to(overlay, state)
    before = await overlay.everything()
    swept = await overlay.sweep("c1")
    if state in FINAL:
        assert swept == 1
        assert await overlay.everything() == {}
        assert await overlay.sweep("c1") == 0
    else:
        assert swept == 0
        assert await overlay.everything() == before


async def test_what_is_taken_away_leaves_the_others_alone(overlay: Overlay) -> None:
    await overlay.put("c1")
    only = await overlay.everything()
    await overlay.put("c2")
    await overlay.withdraw("c2")
    await overlay.put("c3")
    await overlay.settle("c3", "saved")
    await overlay.sweep("c3")
    after = await overlay.everything()
    given = after[overlay.entries].pop("seq")
    assert given == "3", "numbers are not given again while an entry is there"
    only[overlay.entries].pop("seq")
    assert after == only


async def test_scripts_do_not_mind_what_is_not_there(overlay: Overlay) -> None:
    assert await overlay.confirm("gone") is None
    assert await overlay.settle("gone", "saved") is None
    assert await overlay.withdraw("gone") == 0
    assert await overlay.sweep("gone") == 0
    assert await overlay.everything() == {}


async def test_a_state_after_a_parked_one_keeps_its_number(overlay: Overlay) -> None:
    await overlay.put("c0")
    await overlay.put("c1")
    await overlay.settle("c1", "parked", 1, 8)
    await overlay.settle("c1", "saved", 1, 8)
    assert await overlay.status("c1") == Status(EntryState.SAVED, 2, 1, 8)


# -- the writer's side -------------------------------------------------------------------------------


def _settled(services: Services, overlay: Overlay, grace_s: float) -> SettledOverlay:
    return SettledOverlay(services.redis_url, overlay.keys, grace_s)


async def test_the_writer_settles_and_sweeps_after_the_grace(
    services: Services, overlay: Overlay
) -> None:
    commands = [short_id(uuid.uuid4()) for _ in range(3)]
    for command in commands:
        await overlay.put(command)
        await overlay.confirm(command)
    states = [EntryState.SAVED, EntryState.REJECTED, EntryState.PARKED]
    settlements = [
        Settlement(overlay.author, long_id(command), state, 0, 5)
        for command, state in zip(commands, states, strict=True)
    ]
    patient, quick = _settled(services, overlay, 3600), _settled(services, overlay, 0)
    try:
        await patient.settle(settlements)
        await patient.settle(settlements)
        assert [await overlay.state(c) for c in commands] == states
        assert await patient.sweep() == 0, "within the grace everything stays"
        await quick.settle(settlements)
        assert await quick.sweep() == 2, "what is parked is not settled"
        assert [await overlay.state(c) for c in commands] == [None, None, EntryState.PARKED]
        await quick.settle([Settlement(overlay.author, long_id(commands[2]), FINAL[0], 0, 5)])
        assert await quick.sweep() == 1
        assert await quick.sweep() == 0
        assert await overlay.everything() == {}
    finally:
        await patient.close()
        await quick.close()


async def test_the_writer_leaves_a_tombstone_for_an_entry_that_comes_later(
    services: Services, overlay: Overlay
) -> None:
    command = short_id(uuid.uuid4())
    writer = _settled(services, overlay, 0)
    try:
        parked = Settlement(overlay.author, long_id(command), EntryState.PARKED, 0, 5)
        await writer.settle([parked])
        assert await overlay.everything() == {}, "what is parked is not settled"
        saved = Settlement(overlay.author, long_id(command), EntryState.SAVED, 0, 5)
        await writer.settle([saved])
        before = await overlay.everything()
        assert await overlay.put(command) == "saved|0|0|5"
        assert await overlay.lay(command) == "saved|0|0|5"
        assert await overlay.confirm(command) == "saved|0|0|5"
        assert await overlay.withdraw(command) == 0
        assert await overlay.everything() == before
        assert await writer.sweep() == 1
        assert await overlay.everything() == {}
    finally:
        await writer.close()


async def test_many_tombstones_are_a_table_and_nothing_else(
    services: Services, overlay: Overlay
) -> None:
    """As one piece, Redis would read through all of them for each that is added."""
    settled = [Settlement(overlay.author, uuid.uuid4(), EntryState.SAVED, 0, 5) for _ in range(90)]
    writer = _settled(services, overlay, 0)
    try:
        await writer.settle(settled[:30])
        assert await overlay.redis.object("ENCODING", overlay.entries) == "listpack", (
            "few are small"
        )
        await writer.settle(settled[30:])
        assert await overlay.redis.object("ENCODING", overlay.entries) == "hashtable"
        fields = await overlay.redis.hkeys(overlay.entries)
        assert sorted(fields) == sorted(f"{short_id(s.command_id)}:s" for s in settled)
        assert await writer.sweep() == 90
        assert await overlay.everything() == {}
    finally:
        await writer.close()


async def test_what_the_log_has_is_laid_confirmed(overlay: Overlay) -> None:
    assert await overlay.lay("c1", 2, 77) == "pending|1|2|77"
    laid = await overlay.everything()
    await overlay.has_members("c1")
    assert await overlay.lay("c1", 2, 99) == "pending|1|2|77", "the first place counts"
    assert await overlay.everything() == laid
    await overlay.put("c2")
    assert await overlay.lay("c2", "", "") == "pending|2||"


async def test_what_comes_too_late_is_not_laid(overlay: Overlay) -> None:
    seconds, microseconds = await overlay.redis.time()
    now_ms = seconds * 1000 + microseconds // 1000
    assert await overlay.lay("c1", until=str(now_ms - 1)) is None
    assert await overlay.everything() == {}
    assert await overlay.lay("c1", until=str(now_ms + 60_000)) == "pending|1|0|5"
    await overlay.put("c2")
    assert await overlay.lay("c2", until=str(now_ms - 1)) == "pending|2|0|5", "it is there already"


@pytest.mark.parametrize("payload", ["no json", '{"command": {}, "scopes": [["k", "m"]]}', "[1]\n"])
async def test_a_payload_that_another_version_wrote_is_swept_all_the_same(
    overlay: Overlay, payload: str
) -> None:
    await overlay.put("c1", payload)
    await overlay.settle("c1", "saved")
    assert await overlay.sweep("c1") == 1
    assert await overlay.redis.exists(overlay.entries) == 0


async def test_sweeping_goes_on_in_portions(services: Services, overlay: Overlay) -> None:
    commands = [short_id(uuid.uuid4()) for _ in range(7)]
    for command in commands:
        await overlay.put(command)
    writer = _settled(services, overlay, 0)
    try:
        for command in commands:
            await writer.settle([Settlement(overlay.author, long_id(command), FINAL[0], 0, 5)])
        assert [await writer.sweep(3) for _ in range(4)] == [3, 3, 1, 0]
        assert await overlay.everything() == {}
    finally:
        await writer.close()


async def test_what_was_settled_at_once_is_swept_at_once(
    services: Services, overlay: Overlay
) -> None:
    """And beside it what was noted one by one, as a rebuild does."""
    writer = _settled(services, overlay, 0)
    settled = [Settlement(overlay.author, uuid.uuid4(), FINAL[0], 0, 5) for _ in range(50)]
    alone = Settlement(overlay.author, uuid.uuid4(), FINAL[0], 0, 5)
    others = Settlement(uuid.uuid4(), uuid.uuid4(), FINAL[0], 0, 5)
    try:
        await writer.settle([*settled, others])
        members = await overlay.redis.zrange(overlay.keys.sweep(), 0, -1)
        assert len(members) == 4, "20, 20 and 10 of the author, 1 of another"
        await writer.settle([alone])
        single = f"{alone.owner}:{alone.command_id}"
        assert await overlay.redis.zscore(overlay.keys.sweep(), single) is not None
        assert await writer.sweep() == 52
        assert await overlay.everything() == {}
    finally:
        await writer.close()
