"""What an audit tells people."""

import pytest

from writer.audit.findings import Report
from writer.audit_command import text

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("report", "counts"),
    [
        (Report(lanes=1, ledger_rows=1, content_rows=1), "1 lane, 1 ledger row, 1 content row."),
        (Report(lanes=4, ledger_rows=8_000), "4 lanes, 8,000 ledger rows, 0 content rows."),
    ],
    ids=["one", "many"],
)
def test_one_is_told_as_one(report: Report, counts: str) -> None:
    assert text(report).splitlines() == [counts, "Clean: ledger and content agree."]
