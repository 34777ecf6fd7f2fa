"""Checks of what a command that was not saved must leave behind: dead letter, notice, parked row."""

from schema.catalog import Catalog
from writer.audit.findings import Code, Finding, Report
from writer.audit.snapshot import Snapshot, rows_of

# A decision of the operators that a dead letter may go would be told by the ledger's `problem`;
# this is the place to ask it.
_DEAD_LETTERS = """
    SELECT r.lane, r."offset", r.outcome FROM afterwrite.ledger r
    WHERE r.outcome IN ('rejected', 'dead') AND NOT EXISTS (
        SELECT FROM afterwrite.dead_letter d
        WHERE d.lane = r.lane AND d."offset" = r."offset"
            AND d.command_id IS NOT DISTINCT FROM r.command_id)
    ORDER BY r.lane, r."offset"
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


async def _parked(snapshot: Snapshot, report: Report, query: str, code: Code, text: str) -> None:
    async for row in rows_of(snapshot, query):
        report.add(Finding(code, text, row["lane"], row["offset"]))
