"""`afterwrite audit`: proves that ledger and content agree, on a live system.

It reads one snapshot of PostgreSQL with the owner's connection and changes nothing. Four checks:

1. the ledger by itself (`lanes`): one row for every offset, one effect for every command;
2. the content against the ledger (`content`): every row is what its last effect left;
3. the counters (`content`): stored equals counted;
4. what was not saved (`outcomes`): every rejection has its dead letter and notice, every replay of
   one is in the ledger or beyond the position in the log, every parked command is held.

The client's memory does not grow with the database; PostgreSQL sorts, and may use temporary files of
about the ledger's size.
"""

from schema.catalog import Catalog
from writer.audit.content import check_content
from writer.audit.findings import Finding, Progress, Report
from writer.audit.lanes import check_lanes
from writer.audit.outcomes import check_outcomes
from writer.audit.snapshot import CannotConnect, open_snapshot

__all__ = ["CannotConnect", "Finding", "Progress", "Report", "audit"]


def _silent(stage: str, rows: int) -> None:
    pass


async def audit(url: str, catalog: Catalog, progress: Progress = _silent) -> Report:
    """The report on the database at `url`, which must let us in as the owner of its tables.

    Raises `CannotConnect`, and asyncpg's errors when the connection breaks or a table is missing.
    """
    report = Report()
    async with open_snapshot(url) as snapshot:
        lanes = await snapshot.fetch("SELECT lane, ledger_from FROM afterwrite.lane")
        trimmed = any(lane["ledger_from"] > 0 for lane in lanes)
        report.lanes = len(lanes)
        report.ledger_rows = await snapshot.fetchval("SELECT count(*) FROM afterwrite.ledger")
        progress("ledger rows", report.ledger_rows)
        await check_lanes(snapshot, catalog, report, trimmed)
        await check_content(snapshot, catalog, report, trimmed, progress)
        await check_outcomes(snapshot, catalog, report)
    return report
