"""The one door: an act of an operator is checked, done once, and written into the audit log."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from schema import clock
from schema.acts import LETTER_KINDS, Act, Letters, Place
from schema.catalog import Catalog
from schema.envelope import Keyring
from writer.operation import audit_log, lanes
from writer.operation.letters import DeadLetter, find, places_of
from writer.operation.replaying import BATCH, Progress, Publisher, Replaying
from writer.operation.trial import MOST_TRIED, Forecast

_DISCARD: Final = """
UPDATE afterwrite.dead_letter SET closed = 'discarded', closed_at = $1
WHERE (lane, "offset") IN (SELECT * FROM unnest($2::int[], $3::bigint[]))
    AND closed IS NULL AND replay_id IS NULL
RETURNING lane, "offset", command_id
"""

_LANE_ACTS: Final[Mapping[str, Callable[[asyncpg.Connection, Act], Awaitable[dict[str, Any]]]]] = {
    "pause": lanes.pause,
    "resume": lanes.resume,
    "continue": lanes.go_on,
    "retry_parked": lanes.retry_parked,
}


@dataclass(frozen=True)
class Tools:
    """What acts are performed with. `topic` is the command topic's name."""

    connection: asyncpg.Connection
    publisher: Publisher
    keyring: Keyring
    catalog: Catalog
    topic: str
    lanes: int


@dataclass(frozen=True)
class Performed:
    """What became of an act. `ok` is False when anything that was wanted was not done, and `result`
    says why. `again`: it had been done before, and nothing was done now."""

    ok: bool
    result: Mapping[str, Any]
    again: bool = False


async def perform(tools: Tools, act: Act, progress: Progress = lambda step: None) -> Performed:
    """Do what an act says, unless it was done before. A dry run leaves nothing behind.

    Raises `LogUnavailable`, `TimeoutError` or a database error when a server goes away meanwhile:
    performing the same act again goes on from there.
    """
    if not act.who.may_act:
        return await refuse(tools.connection, act, "forbidden: operators and administrators may")
    if act.kind not in LETTER_KINDS:
        return await _on_lanes(tools.connection, act)
    if act.dry_run:
        return await _dry_run(tools, act, progress)
    entry = await audit_log.entry_of(tools.connection, act)
    if entry is None:
        entry = await audit_log.begin(tools.connection, act, await _places(tools, act), clock.now())
    if entry.done:
        return _again(entry)
    if act.kind == "discard":
        return await _discard(tools.connection, act, entry.places, progress)
    return await _replay(tools, act, entry, progress)


async def refuse(connection: asyncpg.Connection, act: Act, why: str) -> Performed:
    """Write down that an act was not done, and why."""
    if act.dry_run:
        return Performed(False, {"why": why})
    async with connection.transaction():
        entry = await audit_log.begin(connection, act, None, clock.now())
        if entry.done:
            return _again(entry)
        result = dict(entry.result) | {"why": why, "ok": False}
        await audit_log.write_result(connection, act, result, done=True)
    return Performed(False, result | {"done": True})


async def _on_lanes(connection: asyncpg.Connection, act: Act) -> Performed:
    async with connection.transaction():
        entry = await audit_log.begin(connection, act, None, clock.now())
        if entry.done:
            return _again(entry)
        result = await _LANE_ACTS[act.kind](connection, act)
        result["ok"] = "lanes" not in result or bool(result["lanes"])
        if not result["ok"]:
            result["why"] = f"there is no lane {act.lane}"
        await audit_log.write_result(connection, act, result, done=True)
    return Performed(result["ok"], result)


async def _places(tools: Tools, act: Act) -> list[Place]:
    """What an act is about: what it names, or what its filter finds now; in order, each once."""
    letters = act.letters or Letters(places=())
    if letters.places is not None:
        return sorted(set(letters.places))
    return await places_of(tools.connection, letters)


async def _dry_run(tools: Tools, act: Act, progress: Progress) -> Performed:
    places = await _places(tools, act)
    replaying = _replaying(tools, act, progress)
    tried, rest = places[:MOST_TRIED], places[MOST_TRIED:]
    letters = await _found(tools.connection, replaying, tried)
    if act.kind == "discard":
        for letter in letters:
            if letter.replay_id is not None:
                replaying.refuse(letter.name, _BEGUN)
        left = {step["letter"] for step in replaying.result["refused"]}
        discarded = [name for name in map(_named, places) if name not in left]
        result: dict[str, Any] = {"discarded": discarded, "refused": replaying.result["refused"]}
        for name in discarded:
            progress({"letter": name})
    else:
        await replaying.run(letters)
        result = replaying.result
        unknown = Forecast("unknown", detail=f"only the first {MOST_TRIED} are tried")
        for place in rest:
            step = {"letter": _named(place), "forecast": unknown.to_json()}
            result["replayed"].append(step)
            progress(step)
    return Performed(not result["refused"], result | {"dry_run": True})


async def _replay(tools: Tools, act: Act, entry: audit_log.Entry, progress: Progress) -> Performed:
    replaying = _replaying(tools, act, progress)
    # What a process that performed it had done when it was killed is not done again, nor forgotten.
    replaying.result["replayed"] = list(entry.result.get("replayed", ()))
    done = {step["letter"] for step in replaying.result["replayed"]}
    places = [place for place in entry.places if _named(place) not in done]
    for at in range(0, len(places), BATCH):  # letters may be large: never all at once
        await replaying.run(await _found(tools.connection, replaying, places[at : at + BATCH]))
    result = replaying.result
    result["ok"] = not result["refused"]
    await audit_log.write_result(tools.connection, act, result, done=True)
    return Performed(result["ok"], result)


async def _discard(
    connection: asyncpg.Connection, act: Act, places: Sequence[Place], progress: Progress
) -> Performed:
    async with connection.transaction():
        rows = await connection.fetch(
            _DISCARD, clock.now(), [p[0] for p in places], [p[1] for p in places]
        )
        done = sorted((row["lane"], row["offset"]) for row in rows)
        left = sorted(set(places) - set(done))
        refused = [{"letter": _named(p), "why": w} for p, w in await _why_not(connection, left)]
        result = {
            "discarded": [_named(place) for place in done],
            "refused": refused,
            "ok": not refused,
        }
        await audit_log.write_result(connection, act, result, done=True)
    for step in [{"letter": _named(place)} for place in done] + refused:
        progress(step)
    return Performed(not refused, result)


_BEGUN = "a replay of it was begun and may be in the log; `replay` completes it"


async def _found(
    connection: asyncpg.Connection, replaying: Replaying, places: Sequence[Place]
) -> list[DeadLetter]:
    """The open letters at these places; each of the others is told, with the reason."""
    letters = await find(connection, Letters(places=tuple(places)))
    missing = sorted(set(places) - {letter.place for letter in letters})
    for place, why in await _why_not(connection, missing):
        replaying.refuse(_named(place), why)
    return letters


async def _why_not(
    connection: asyncpg.Connection, places: Sequence[Place]
) -> list[tuple[Place, str]]:
    found = {
        letter.place: letter
        for letter in await find(connection, Letters(places=tuple(places)), closed=True)
    }
    reasons = []
    for place in places:
        letter = found.get(place)
        if letter is None:
            why = "there is no such dead letter"
        elif letter.closed is None:
            why = _BEGUN
        else:
            as_ = f" as {letter.replay_id}" if letter.closed == "replayed" else ""
            why = f"it was {letter.closed}{as_} before"
        reasons.append((place, why))
    return reasons


def _replaying(tools: Tools, act: Act, progress: Progress) -> Replaying:
    return Replaying(
        connection=tools.connection,
        publisher=tools.publisher,
        keyring=tools.keyring,
        catalog=tools.catalog,
        topic=tools.topic,
        lanes=tools.lanes,
        act=act,
        progress=progress,
    )


def _again(entry: audit_log.Entry) -> Performed:
    return Performed(entry.result.get("ok") is True, entry.result, again=True)


def _named(place: Place) -> str:
    return f"{place[0]}:{place[1]}"
