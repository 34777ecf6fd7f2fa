"""Do the tables agree with the content types? Asked by every process when it first connects."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from schema.catalog import Catalog

COLUMNS: Final = """
SELECT c.relname AS table, a.attname AS column, format_type(a.atttypid, NULL) AS type
FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
"""


class TablesDiffer(Exception):
    """A content type has no table, or its table lacks a column: run `afterwrite migrate`."""


def check_columns(catalog: Catalog, rows: Iterable[Mapping[str, Any]]) -> None:
    """Compare the answer to `COLUMNS` with the declarations. Raises `TablesDiffer`.

    Columns that no content type declares are the site's own business.
    """
    found = {(row["table"], row["column"]): row["type"] for row in rows}
    faults = []
    tables = {table for table, _ in found}
    for kind in catalog:
        if kind.name not in tables:
            faults.append(f"there is no table {kind.name}")
            continue
        for column, wanted in kind.column_types().items():
            is_ = found.get((kind.name, column))
            if is_ is None:
                faults.append(f"{kind.name}.{column} is missing")
            elif is_ != wanted:
                faults.append(f"{kind.name}.{column} is {is_}, declared as {wanted}")
    if faults:
        raise TablesDiffer(
            "content types and tables disagree: "
            + "; ".join(faults)
            + ". Where `afterwrite migrate` does not help, correct the declaration, or write a new "
            "migration that changes the table"
        )
