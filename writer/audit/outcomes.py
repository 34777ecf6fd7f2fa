"""Checks of what a command that was not saved must leave behind: dead letter, notice, parked row."""

from schema.catalog import Catalog
from writer.audit.findings import Code, Finding, Report
from writer.audit.snapshot import Snapshot, rows_of

# Letters that operators have dealt with are marked, and stay.
_DEAD_LETTERS = """
    SELECT r.lane, r."offset", r.outcome FROM afterwrite.ledger r
    WHERE r.outcome IN ('rejected', 'dead') AND NOT EXISTS (
        SELECT FROM afterwrite.dead_letter d
        WHERE d.lane = r.lane AND d."offset" = r."offset"
            AND d.command_id IS NOT DISTINCT FROM r.command_id)
    ORDER BY r.lane, r."offset"
"""
_LETTERS_UNKNOWN = """
    SELECT d.lane, d."offset", r.outcome FROM afterwrite.dead_letter d
    JOIN afterwrite.ledger r ON r.lane = d.lane AND r."offset" = d."offset"
    WHERE r.outcome NOT IN ('rejected', 'dead')
    ORDER BY d.lane, d."offset"
"""
# Kafka had confirmed the replay at its place before the letter was closed: once the lane is beyond it,
# the ledger has it. Where the place was not told, the ledger may have it later, or have dropped it.
_REPLAYS = """
    SELECT d.lane, d."offset", d.replay_id, d.replay_lane, d.replay_offset,
        d.replay_offset IS NULL OR d.replay_offset < l.ledger_from AS unverifiable
    FROM afterwrite.dead_letter d LEFT JOIN afterwrite.lane l ON l.lane = d.replay_lane
    WHERE d.closed = 'replayed'
        AND (d.replay_offset IS NULL OR d.replay_offset < l.position OR l.lane IS NULL)
        AND NOT EXISTS (SELECT FROM afterwrite.ledger r WHERE r.command_id = d.replay_id)
    ORDER BY d.lane, d."offset"
"""
# The notice, new or added to, is an effect of the rejection; whether its row is there is a matter of the
# content. Nobody is told that a command of Afterwrite itself, which could only tell him something, failed.
_NOTICES = """
    SELECT r.lane, r."offset", r.author_id FROM afterwrite.ledger r
    WHERE r.outcome = 'rejected' AND r.problem->>'system' IS NULL AND NOT EXISTS (
        SELECT FROM jsonb_to_recordset(r.effects) AS e(type text, op text)
        WHERE e.type = $1 AND e.op IN ('create', 'update'))
    ORDER BY r.lane, r."offset"
"""
_PARKED_MISSING = """
    SELECT r.lane, r."offset" FROM afterwrite.ledger r
    WHERE r.outcome = 'parked' AND NOT EXISTS (
        SELECT FROM afterwrite.parked p
        WHERE p.lane = r.lane AND p."offset" = r."offset" AND p.command_id = r.command_id)
    ORDER BY r.lane, r."offset"
"""
_PARKED_UNKNOWN = """
    SELECT p.lane, p."offset" FROM afterwrite.parked p
    WHERE NOT EXISTS (
        SELECT FROM afterwrite.ledger r
        WHERE r.lane = p.lane AND r."offset" = p."offset" AND r.command_id = p.command_id
            AND r.outcome = 'parked')
    ORDER BY p.lane, p."offset"
"""


async def check_outcomes(snapshot: Snapshot, catalog: Catalog, report: Report) -> None:
    """Adds every rejection, dead record and parked command that is not accounted for."""
    async for row in rows_of(snapshot, _DEAD_LETTERS):
        text = f"The ledger says {row['outcome']}, but there is no dead letter."
        report.add(Finding("dead_letter_missing", text, row["lane"], row["offset"]))
    async for row in rows_of(snapshot, _LETTERS_UNKNOWN):
        text = f"A dead letter of what the ledger calls {row['outcome']}."
        report.add(Finding("dead_letter_unknown", text, row["lane"], row["offset"]))
    await _replays(snapshot, report)
    async for row in rows_of(snapshot, _NOTICES, catalog.notice.name):
        text = f"The ledger says rejected, but author {row['author_id']} got no notice of it."
        report.add(Finding("notice_missing", text, row["lane"], row["offset"]))
    await _parked(
        snapshot,
        report,
        _PARKED_MISSING,
        "parked_missing",
        "The ledger says parked, but no such command is held.",
    )
    await _parked(
        snapshot,
        report,
        _PARKED_UNKNOWN,
        "parked_unknown",
        "A command is held that the ledger does not call parked.",
    )


async def _replays(snapshot: Snapshot, report: Report) -> None:
    async for row in rows_of(snapshot, _REPLAYS):
        if row["unverifiable"]:
            report.unverifiable += 1
            continue
        text = (
            f"It was replayed as {row['replay_id']} at {row['replay_lane']}:{row['replay_offset']}, "
            "but the ledger has no such command."
        )
        report.add(Finding("replay_missing", text, row["lane"], row["offset"]))


async def _parked(snapshot: Snapshot, report: Report, query: str, code: Code, text: str) -> None:
    async for row in rows_of(snapshot, query):
        report.add(Finding(code, text, row["lane"], row["offset"]))
