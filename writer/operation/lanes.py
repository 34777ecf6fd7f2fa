"""Lanes and parked streams: pause, resume, let a halted lane go on, try what is parked now."""

from typing import Any, Final

import asyncpg

from schema import clock
from schema.acts import Act

# The writer looks at `paused` whenever it renews or moves the lane; it keeps the lane meanwhile.
_PAUSE: Final = """
UPDATE afterwrite.lane SET paused = $2 WHERE $1::int IS NULL OR lane = $1 RETURNING lane
"""
_RESUME: Final = """
WITH before AS (
    SELECT lane, paused FROM afterwrite.lane WHERE $1::int IS NULL OR lane = $1 FOR UPDATE)
UPDATE afterwrite.lane l SET paused = NULL FROM before WHERE l.lane = before.lane
RETURNING l.lane, before.paused, l.halted
"""
_CONTINUE: Final = """
WITH before AS (SELECT lane, halted FROM afterwrite.lane WHERE lane = $1 FOR UPDATE)
UPDATE afterwrite.lane l SET halted = NULL, deaths = 0 FROM before WHERE l.lane = before.lane
RETURNING l.lane, before.halted, l.paused
"""
# The head of each stream brings the others with it.
_RETRY: Final = """
UPDATE afterwrite.parked p SET retry_at = $4
FROM (
    SELECT lane, stream, min("offset") AS head FROM afterwrite.parked GROUP BY lane, stream
) AS held
WHERE p.lane = held.lane AND p."offset" = held.head
    AND ($1::int IS NULL OR p.lane = $1)
    AND ($2::int[] IS NULL OR EXISTS (
        SELECT FROM afterwrite.parked named, unnest($2::int[], $3::bigint[]) AS n(lane, "offset")
        WHERE named.lane = n.lane AND named."offset" = n."offset"
            AND named.lane = p.lane AND named.stream = p.stream))
RETURNING p.lane, p."offset"
"""


async def pause(connection: asyncpg.Connection, act: Act) -> dict[str, Any]:
    """Let the writer stand still with the lane in its hand. Accepting goes on."""
    reason = f"{act.reason} ({act.who.name})"
    rows = await connection.fetch(_PAUSE, act.lane, reason)
    return {"lanes": sorted(row["lane"] for row in rows)}


async def resume(connection: asyncpg.Connection, act: Act) -> dict[str, Any]:
    """Take a pause back. A lane that is halted stays so: it has a cause of its own."""
    rows = await connection.fetch(_RESUME, act.lane)
    return {
        "lanes": sorted(row["lane"] for row in rows),
        "were_paused": {str(r["lane"]): r["paused"] for r in rows if r["paused"] is not None},
        "halted": {str(r["lane"]): r["halted"] for r in rows if r["halted"] is not None},
    }


async def go_on(connection: asyncpg.Connection, act: Act) -> dict[str, Any]:
    """Let a halted lane go on, after its cause was mended."""
    rows = await connection.fetch(_CONTINUE, act.lane)
    return {
        "lanes": [row["lane"] for row in rows],
        "were_halted": {str(r["lane"]): r["halted"] for r in rows if r["halted"] is not None},
    }


async def retry_parked(connection: asyncpg.Connection, act: Act) -> dict[str, Any]:
    """Have parked streams tried now, whatever their backoff says."""
    places = act.letters.places if act.letters is not None else None
    named = None if places is None else ([p[0] for p in places], [p[1] for p in places])
    rows = await connection.fetch(_RETRY, act.lane, *(named or (None, None)), clock.now())
    return {"streams": len(rows), "heads": [[row["lane"], row["offset"]] for row in rows]}
