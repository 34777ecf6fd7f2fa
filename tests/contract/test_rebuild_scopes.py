"""A rebuilt command is found under the very index members that it had when it was accepted."""

import copy
import random
import uuid
from collections.abc import Mapping
from typing import Any

import httpx2
import pytest

from frontend_api.overlay_rows import RowRef
from frontend_api.planning import Effect, public_part, scopes_of, shared_scopes_of
from frontend_api.rebuild_effects import Replay
from schema.catalog import Catalog, load_catalog
from schema.commands import Command
from schema.content import Row
from schema.redis_keys import SHARED, RedisKeys
from schema.scopes import Scope
from tests.fakes import Tables
from tests.frontend import FrontEnd, front_end
from writer.decisions import Change

pytestmark = pytest.mark.contract

KEYS = RedisKeys("afterwrite")
EMOJI = ("%F0%9F%91%8D", "%E2%9C%A8")


async def _do(client: httpx2.AsyncClient, how: random.Random, topics: list[str]) -> None:
    """One change that may be possible or not."""
    listed = (await client.get("/v1/topics")).json()["items"]
    mine = [t["id"] for t in listed] or topics
    posts: list[dict[str, Any]] = []
    if mine:
        found = await client.get(f"/v1/topics/{how.choice(mine)}/posts")
        posts = found.json().get("items", [])
    post = how.choice(posts)["id"] if posts else uuid.uuid4()
    any_version = {"If-Match": "*"}
    what = how.randrange(8) if mine else 0
    if what == 0:
        made = await client.post("/v1/topics", json={"title": "T", "body": "B"})
        assert made.status_code == 202, made.text
        topics.append(made.json()["id"])
    elif what in (1, 2):
        await client.post(f"/v1/topics/{how.choice(mine)}/posts", json={"body": "P"})
    elif what == 3:
        await client.patch(f"/v1/posts/{post}", json={"body": "E"}, headers=any_version)
    elif what == 4:
        await client.delete(f"/v1/posts/{post}", headers=any_version)
    elif what == 5:
        await client.put(f"/v1/posts/{post}/reactions/{how.choice(EMOJI)}")
    elif what == 6:
        await client.delete(f"/v1/posts/{post}/reactions/{how.choice(EMOJI)}")
    else:
        await client.patch(
            f"/v1/topics/{how.choice(mine)}", json={"title": "Other"}, headers=any_version
        )


def _told(catalog: Catalog, before: Tables, after: Tables, command: Command) -> list[Any]:
    """The effects that the writer's ledger row has of it: the last one on each row."""
    last: dict[tuple[str, uuid.UUID], dict[str, Any]] = {}
    for m in command.mutations:
        kind, row_id = catalog[m.type], m.id
        old, new = before.table(m.type).get(row_id), after.table(m.type).get(row_id)
        if m.op == "create" and old is not None:
            continue
        row = old if m.op == "delete" else new
        if row is not None:
            last[m.type, row_id] = Change(kind, m.op, row).effect()
    return list(last.values())


def _scopes(catalog: Catalog, command: Command, effects: tuple[Effect, ...]) -> set[Scope]:
    found = set(scopes_of(catalog, KEYS, command, effects))
    if public_part(catalog, command) is not None:
        found |= set(shared_scopes_of(catalog, KEYS, command, effects))
    return found


def _accepted(site: FrontEnd, command: Command) -> set[Scope]:
    held = site.backends.overlay.scopes
    own = held[command.author.id, command.command_id]
    return {*own, *held.get((SHARED, command.command_id), ())}


def _known(tables: Tables, wanted: set[RowRef]) -> Mapping[RowRef, Row | None]:
    return {(type_, row_id): tables.table(type_).get(row_id) for type_, row_id in wanted}


@pytest.mark.parametrize("content", ["schema.forum", "tests.content_open"])
@pytest.mark.parametrize("seed", range(4))
async def test_what_is_rebuilt_has_the_members_that_it_had(content: str, seed: int) -> None:
    how = random.Random(seed)
    catalog = load_catalog(content)
    async with front_end(content=content, writes_per_minute=100_000) as site:
        database, log = site.backends.database, site.backends.log
        topics: list[str] = []
        passed: list[tuple[Command, list[Any]]] = []
        for _ in range(40):
            who = how.choice((("ada",), ("bob", "moderator")))
            async with site.client(*who) as client:
                await _do(client, how, topics)
            if how.random() < 0.3 and len(passed) < len(log.commands()):
                command = log.commands()[len(passed)]
                before = copy.deepcopy(database.tables)
                database.apply(command)
                passed.append((command, _told(catalog, before, database.tables, command)))
        commands = log.commands()
        undecided = commands[len(passed) :]
        assert undecided
        replay, compared = Replay(catalog), 0
        made = {m.id for command in undecided for m in command.mutations if m.op == "create"}
        for at in range(0, len(undecided), 3):  # in batches, as the log is read
            batch = undecided[at : at + 3]
            known = _known(database.tables, replay.wanted(batch))
            for command in batch:
                effects = replay.undecided(command, known)
                ids = {m.id for m in command.mutations if m.op != "create"}
                if any(e.before is None and e.planned.mutation.id in ids - made for e in effects):
                    continue  # another has deleted the row meanwhile: it changes nothing any more
                compared += 1
                assert _scopes(catalog, command, effects) == _accepted(site, command)
        assert compared
        for command, told in passed:
            if database.tables.ledger[command.command_id]["outcome"] == "saved":
                effects = Replay(catalog).saved(command, told)
                assert _scopes(catalog, command, effects) == _accepted(site, command)
