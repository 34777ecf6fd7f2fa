"""Checks of the ledger by itself: exactly one row for every offset, one effect for every command."""

from schema.catalog import Catalog
from writer.audit.findings import Finding, Report
from writer.audit.snapshot import Snapshot, rows_of

# A mark before the first offset that must be there makes a gap at the start one like any other.
_GAPS = """
    WITH mark AS (
        SELECT r.lane, r."offset" FROM afterwrite.ledger r JOIN afterwrite.lane l USING (lane)
        WHERE r."offset" >= l.ledger_from AND r."offset" < l.position
        UNION ALL
        SELECT lane, ledger_from - 1 FROM afterwrite.lane
    ), step AS (
        SELECT lane, "offset", lead("offset") OVER (PARTITION BY lane ORDER BY "offset") AS next
        FROM mark
    )
    SELECT lane, step."offset" + 1 AS first, coalesce(next, l.position) - 1 AS last
    FROM step JOIN afterwrite.lane l USING (lane)
    WHERE coalesce(next, l.position) > step."offset" + 1
    ORDER BY lane, first
"""
_DOUBLES = """
    SELECT lane, "offset", count(*) AS times FROM afterwrite.ledger
    GROUP BY lane, "offset" HAVING count(*) > 1 ORDER BY lane, "offset"
"""
_BEYOND = """
    SELECT r.lane, r."offset", l.position FROM afterwrite.ledger r
    LEFT JOIN afterwrite.lane l USING (lane)
    WHERE l.lane IS NULL OR r."offset" >= l.position
    ORDER BY r.lane, r."offset"
"""
_COMMANDS_TWICE = """
    SELECT command_id, min(lane) AS lane, min("offset") AS first, max("offset") AS last,
        count(DISTINCT (lane, "offset")) AS times
    FROM afterwrite.ledger WHERE outcome <> 'duplicate' AND command_id IS NOT NULL
    GROUP BY command_id HAVING count(DISTINCT (lane, "offset")) > 1
    ORDER BY command_id
"""
_DANGLING = """
    SELECT d.lane, d."offset", d.duplicate_of FROM afterwrite.ledger d
    WHERE d.outcome = 'duplicate' AND NOT EXISTS (
        SELECT FROM afterwrite.ledger e
        WHERE e.command_id = d.duplicate_of AND e.outcome <> 'duplicate')
    ORDER BY d.lane, d."offset"
"""
# `seq` tells the order of decisions. A row is out of order if a later offset was decided before it:
# it had been parked, and was decided under the epoch of that later day. (Backwards, because a frame
# with a moving start would cost the square of the rows.)
_EPOCHS = """
    WITH decided AS (
        SELECT lane, "offset", epoch, seq, min(seq) OVER (PARTITION BY lane ORDER BY "offset" DESC
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS least_after
        FROM afterwrite.ledger
    ), step AS (
        SELECT lane, "offset", epoch, max(epoch) OVER (PARTITION BY lane ORDER BY "offset"
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
        FROM decided WHERE seq <= least_after OR least_after IS NULL
    )
    SELECT lane, "offset", step.epoch, before FROM step WHERE step.epoch < before
    UNION ALL
    SELECT lane, "offset", r.epoch, NULL FROM afterwrite.ledger r
    JOIN afterwrite.lane l USING (lane) WHERE r.epoch > l.epoch
    ORDER BY lane, "offset"
"""
# A rejected command leaves one row behind: the notice to its author, new or added to.
_EFFECTS = """
    SELECT lane, "offset", outcome FROM afterwrite.ledger
    WHERE outcome <> 'saved' AND effects <> '[]' AND NOT (
        outcome = 'rejected' AND jsonb_array_length(effects) = 1
        AND effects->0->>'type' = $1::text AND effects->0->>'op' IN ('create', 'update'))
    ORDER BY lane, "offset"
"""


async def check_lanes(snapshot: Snapshot, catalog: Catalog, report: Report, trimmed: bool) -> None:
    """Adds what is wrong in the ledger itself. With `trimmed`, a duplicate of a command that is not
    there any more is unverifiable, not wrong."""
    await _offsets(snapshot, report)
    await _commands(snapshot, report, trimmed)
    async for row in rows_of(snapshot, _EPOCHS):
        text = f"decided under epoch {row['epoch']}, "
        if row["before"] is None:
            text += "which the lane has not reached."
        else:
            text += f"after a row of epoch {row['before']}."
        report.add(Finding("epoch_backwards", text, row["lane"], row["offset"]))
    async for row in rows_of(snapshot, _EFFECTS, catalog.notice.name):
        text = f"A command that was not saved but {row['outcome']} has effects on content."
        report.add(Finding("effects_without_saving", text, row["lane"], row["offset"]))


async def _offsets(snapshot: Snapshot, report: Report) -> None:
    async for row in rows_of(snapshot, _GAPS):
        first, last = row["first"], row["last"]
        which = f"offset {first} has" if first == last else f"offsets {first} to {last} have"
        report.add(Finding("ledger_gap", f"{which} no ledger row.", row["lane"], first))
    async for row in rows_of(snapshot, _DOUBLES):
        text = f"{row['times']} ledger rows for one offset."
        report.add(Finding("ledger_double", text, row["lane"], row["offset"]))
    async for row in rows_of(snapshot, _BEYOND):
        if row["position"] is None:
            text = "A ledger row of a lane that does not exist."
            report.add(Finding("ledger_lane_unknown", text, row["lane"], row["offset"]))
        else:
            text = f"A ledger row, but the lane stands at position {row['position']}."
            report.add(Finding("ledger_beyond_position", text, row["lane"], row["offset"]))


async def _commands(snapshot: Snapshot, report: Report, trimmed: bool) -> None:
    async for row in rows_of(snapshot, _COMMANDS_TWICE):
        text = (
            f"Command {row['command_id']} took effect {row['times']} times, "
            f"the last time at offset {row['last']}."
        )
        report.add(Finding("command_twice", text, row["lane"], row["first"]))
    async for row in rows_of(snapshot, _DANGLING):
        if trimmed and row["duplicate_of"] is not None:
            report.unverifiable += 1
            continue
        text = f"A duplicate of command {row['duplicate_of']}, which the ledger does not have."
        report.add(Finding("duplicate_dangling", text, row["lane"], row["offset"]))
