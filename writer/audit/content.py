"""Checks of the content against the ledger: every row is what its last effect left, and no other."""

import uuid

import asyncpg

from schema.catalog import Catalog
from schema.content import Kind
from writer.audit.findings import Code, Finding, Progress, Report
from writer.audit.snapshot import Snapshot, rows_of

# `effect`: all effects on rows of the wanted types, `last` the latest one on each row. Rows of one
# stream share a lane, in which `seq` is the order. An author's own row may be changed from several
# lanes, and so may a notice: it is made in the lane of its command, and read in its own. There the version
# is the order, and a deletion, which has the version of what it deleted, the last. The only effect of a
# rejected command is its notice.
# `gone`: what vanished, and when: by a delete, or with a row that it hung on, however far away;
# `excused`: rows that vanished after their last effect.
# The row columns are named in the query; everything of the ledger starts with an underscore.
_COMPARE = """
    WITH RECURSIVE effect AS MATERIALIZED (
        SELECT e.type, e.id, e.op, e.version, e.digest, e.parents, l.lane, l."offset", l.seq
        FROM afterwrite.ledger l, jsonb_to_recordset(l.effects)
            AS e(type text, id uuid, op text, version bigint, digest text, parents jsonb)
        WHERE (l.outcome = 'saved' OR l.outcome = 'rejected' AND e.type = $4) AND e.type = ANY($2)
    ), last AS MATERIALIZED (
        SELECT DISTINCT ON (type, id) * FROM effect
        ORDER BY type, id, CASE WHEN type IN ($3, $4) THEN version END DESC NULLS LAST,
            CASE WHEN type IN ($3, $4) THEN op = 'delete' END DESC NULLS LAST, seq DESC, lane
    ), gone AS (
        SELECT id, lane, seq FROM effect WHERE op = 'delete'
        UNION
        SELECT c.id, g.lane, g.seq
        FROM gone g
        JOIN (SELECT id, lane, seq, jsonb_array_elements_text(parents)::uuid AS parent FROM last) c
            ON c.parent = g.id AND (c.lane <> g.lane OR c.seq < g.seq)
    ), excused AS (
        SELECT DISTINCT e.id FROM last e
        JOIN gone g ON g.id = e.id AND (g.lane <> e.lane OR g.seq > e.seq)
    )
    SELECT e.id AS _id, e.op AS _op, e.version AS _version, e.digest AS _digest, e.lane AS _lane,
        e."offset" AS _offset,
        x.id IS NOT NULL AS _gone,
        {columns}
    FROM (SELECT * FROM last WHERE type = $1) e FULL JOIN public."{table}" r ON r.id = e.id
    LEFT JOIN excused x ON x.id = e.id
    ORDER BY coalesce(e.id, r.id)
"""
# Rows are told apart by their id here; a row that is there twice has its own finding.
_COUNTERS = """
    SELECT p.id, p."{column}" AS stored, coalesce(c.n, 0) AS counted
    FROM public."{parent}" p
    LEFT JOIN (SELECT "{ref}" AS id, count(DISTINCT id) AS n FROM public."{child}" GROUP BY 1) c
        ON c.id = p.id
    WHERE p."{column}" IS DISTINCT FROM coalesce(c.n, 0)
    ORDER BY p.id
"""
_EVERY = 50_000


async def check_content(
    snapshot: Snapshot, catalog: Catalog, report: Report, trimmed: bool, progress: Progress
) -> None:
    """Adds every row that is not as the ledger says. With `trimmed`, a row without a ledger entry is
    unverifiable, not wrong. The client holds `FETCH` rows at a time, whatever the size."""
    for kind in catalog:
        await _check_rows(snapshot, catalog, kind, report, trimmed, progress)
        await _check_counters(snapshot, catalog, kind, report)


async def _check_rows(
    snapshot: Snapshot,
    catalog: Catalog,
    kind: Kind,
    report: Report,
    trimmed: bool,
    progress: Progress,
) -> None:
    columns = ", ".join(f'r."{name}"' for name in kind.written_columns)
    query = _COMPARE.format(columns=columns, table=kind.name)
    types = [kind.name, *_ancestors(catalog, kind)]
    seen, before = 0, None
    async for row in rows_of(
        snapshot, query, kind.name, types, catalog.actor.name, catalog.notice.name
    ):
        seen += 1
        if seen % _EVERY == 0:
            progress(kind.plural, seen)
        if row["id"] is not None:
            report.content_rows += 1
        if before is not None and row["id"] == before:
            finding: Finding | None = _finding("row_double", kind, row, "The row is there twice.")
        else:
            finding = _compare(kind, row)
        before = row["id"]
        if finding is None:
            continue
        if finding.code == "row_unknown" and trimmed:
            report.unverifiable += 1
        else:
            report.add(finding)
    progress(kind.plural, seen)


def _compare(kind: Kind, row: asyncpg.Record) -> Finding | None:
    """What is wrong with one pair of latest effect and row; either may be missing."""
    if row["_id"] is None:
        return _finding("row_unknown", kind, row, "A row without a ledger entry.")
    if row["_op"] == "delete":
        if row["id"] is None:
            return None
        return _finding(
            "row_undeleted", kind, row, "The ledger says deleted, but the row is there."
        )
    if row["id"] is None:
        if row["_gone"]:
            return None
        return _finding("row_missing", kind, row, "The ledger says saved, but there is no row.")
    if row["version"] != row["_version"]:
        text = f"The row has version {row['version']}, the ledger says {row['_version']}."
        return _finding("row_changed", kind, row, text)
    if kind.digest(dict(row)) != row["_digest"]:
        return _finding("row_changed", kind, row, "The row is not as it was saved.")
    return None


def _finding(code: Code, kind: Kind, row: asyncpg.Record, text: str) -> Finding:
    found: uuid.UUID = row["id"] if row["id"] is not None else row["_id"]
    return Finding(code, text, row["_lane"], row["_offset"], kind.name, found)


def _ancestors(catalog: Catalog, kind: Kind) -> list[str]:
    """The types of the rows with which a row of this kind vanishes, however far away."""
    found: list[str] = []
    for other in catalog:
        if other.name in found:
            continue
        children = {child.name for child, _ in catalog.children(other)}
        if kind.name in children and other is not kind:
            found += [other.name, *_ancestors(catalog, other)]
    return list(dict.fromkeys(found))


async def _check_counters(snapshot: Snapshot, catalog: Catalog, kind: Kind, report: Report) -> None:
    for ref, column in kind.model.counted_in.items():
        parent = catalog.parent(kind, ref)
        query = _COUNTERS.format(column=column, parent=parent.name, ref=ref, child=kind.name)
        async for row in rows_of(snapshot, query):
            text = f"{column} is {row['stored']}, but there are {row['counted']} {kind.plural}."
            report.add(Finding("counter_wrong", text, type=parent.name, id=row["id"]))
