"""Writes decisions to PostgreSQL, set by set, in the order in which they were made."""

import asyncio
import uuid
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from operator import itemgetter
from typing import Any

import asyncpg

from schema.catalog import Catalog
from schema.content import Kind, Row
from schema.envelope import headers_to_json
from schema.outcomes import Outcome
from writer import statements as sql
from writer.decisions import Change, Decision
from writer.failures import Halt
from writer.ledger import Numbered, ledger_rows
from writer.statements import Statements
from writer.waves import waves

COPY_FROM = 16
"""So many new rows of a table are copied into it. Fewer are inserted: COPY is parsed each time."""
_AT_A_TIME = 100
"""So many ledger rows are made before others get their turn."""


@dataclass
class Flusher:
    """The statements of one lane's transactions."""

    connection: asyncpg.Connection
    catalog: Catalog
    statements: dict[str, Statements]
    guarded: frozenset[str]
    _months: set[date] = field(default_factory=set)

    async def partitions(self, months: Iterable[date]) -> None:
        """Have the ledger's partitions of these months, once each, before the transaction that needs
        them: with that they might be rolled back."""
        for month in sorted(set(months) - self._months):
            await self.connection.execute("SELECT afterwrite.ensure_ledger_period($1)", month)
            self._months.add(month)

    async def content(self, decisions: Sequence[Decision]) -> None:
        """Write what the decisions change, notices to the authors among it.

        A database error here belongs to one of them.
        """
        for changes in waves(decisions, self.guarded):
            await self._wave(changes)

    async def _wave(self, changes: Sequence[Change]) -> None:
        by: dict[tuple[str, str], list[Row]] = defaultdict(list)
        for change in changes:
            by[change.op, change.kind.name].append(change.row)
        kinds = list(self.catalog)
        for kind in reversed(kinds):
            if rows := by.get(("delete", kind.name)):
                await self.connection.execute(
                    self.statements[kind.name].delete, [row["id"] for row in rows]
                )
        for op in ("create", "update"):
            for kind in kinds:
                if rows := by.get((op, kind.name)):
                    await self._write(op, kind, rows)
        await self._count(changes)

    async def _write(self, op: str, kind: Kind, rows: Sequence[Row]) -> None:
        statements = self.statements[kind.name]
        if op == "create" and len(rows) >= COPY_FROM and statements.copied:
            tag = await self.connection.copy_records_to_table(
                kind.name,
                schema_name="public",
                columns=statements.copied,
                records=map(itemgetter(*statements.copied), rows),
            )
        else:
            text = statements.insert if op == "create" else statements.update
            tag = await self.connection.execute(text, *_columns(kind, rows))
        if int(tag.rsplit(" ", 1)[1]) != len(rows):
            # The rows were read and locked in this transaction: this cannot be bad input.
            raise Halt(f"{op} of {len(rows)} {kind.name} rows answered {tag!r}")

    async def _count(self, changes: Iterable[Change]) -> None:
        deltas: dict[tuple[str, str], dict[uuid.UUID, int]] = defaultdict(lambda: defaultdict(int))
        for change in changes:
            for kind, row_id, column, by in change.counted:
                deltas[kind.name, column][row_id] += by
        for (type_, column), by_row in sorted(deltas.items()):
            await self.connection.execute(
                self.statements[type_].count[column], list(by_row), list(by_row.values())
            )

    async def ledger(
        self, lane: int, epoch: int, numbered: Sequence[Numbered], now: datetime
    ) -> None:
        """Write the ledger rows and what hangs on them. Raises `Halt`.

        A parked command that stays parked has its row already: only its wait changes.
        """
        fresh = [n for n in numbered if not n.decision.was_parked]
        released = [n for n in numbered if n.decision.was_parked]
        periods = [n.decision.record.period for n in fresh]
        await self._insert_ledger(lane, epoch, fresh, periods, now)
        for made in released:
            await self._update_ledger(lane, epoch, made, now)
        await self._keys([n.decision for n in fresh], now)

    async def _insert_ledger(
        self,
        lane: int,
        epoch: int,
        fresh: Sequence[Numbered],
        periods: Sequence[date],
        now: datetime,
    ) -> None:
        rows = ledger_rows(fresh, periods, lane, epoch, now)
        if len(fresh) < COPY_FROM:
            await self.connection.executemany(sql.INSERT_LEDGER, rows)
            return
        tag = await self.connection.copy_records_to_table(
            "ledger", schema_name="afterwrite", columns=sql.LEDGER_COLUMNS, records=rows
        )
        if tag != f"COPY {len(fresh)}":
            raise Halt(f"{len(fresh)} ledger rows of lane {lane} answered {tag!r}")

    async def _update_ledger(self, lane: int, epoch: int, made: Numbered, now: datetime) -> None:
        record = made.decision.record
        tag = await self.connection.execute(
            sql.UPDATE_LEDGER,
            lane,
            record.offset,
            record.period,
            made.decision.outcome.value,
            made.seq,
            epoch,
            now,
            made.effects,
            made.problem,
            made.denied,
        )
        if tag != "UPDATE 1":
            raise Halt(f"lane {lane} offset {record.offset} was parked, {tag} now")

    async def _keys(self, decisions: Sequence[Decision], now: datetime) -> None:
        keyed = [
            d.record.command
            for d in decisions
            if d.record.envelope is not None
            and d.outcome is not Outcome.DUPLICATE
            and d.record.command.idempotency_key is not None
            and not (d.problem is not None and d.problem.code == "idempotency_key_reused")
        ]
        if keyed:
            await self.connection.execute(
                sql.INSERT_KEYS,
                now,
                [c.author.id for c in keyed],
                [c.idempotency_key for c in keyed],
                [c.command_id for c in keyed],
                [c.fingerprint for c in keyed],
            )

    async def park(self, lane: int, decisions: Sequence[Decision]) -> None:
        """Write down the commands that are held back, and how those go on waiting that were; forget
        those that wait no longer, which may have begun to wait in this transaction."""
        held = [d for d in decisions if d.park is not None]
        for decision in held:
            if decision.was_parked or decision.park is None:
                continue
            record, park = decision.record, decision.park
            await self.connection.execute(
                sql.INSERT_PARKED,
                lane,
                record.offset,
                record.period,
                decision.stream,
                record.command.command_id,
                record.key,
                record.value,
                headers_to_json(record.headers),
                park.code,
                list(park.waits_for) or None,
                park.parked_at,
                park.attempts,
                _retry_at(park.retry_at),
            )
        for decision in held:
            if decision.stays_parked and decision.park is not None:
                await self.connection.execute(
                    sql.UPDATE_PARKED,
                    lane,
                    decision.record.offset,
                    decision.park.code,
                    list(decision.park.waits_for) or None,
                    decision.park.attempts,
                    _retry_at(decision.park.retry_at),
                )
        released = [d for d in decisions if d.was_parked and not d.stays_parked]
        if released:
            await self.connection.execute(
                sql.DELETE_PARKED, lane, [d.record.offset for d in released]
            )

    async def bury(self, lane: int, decisions: Sequence[Decision], now: datetime) -> None:
        """Keep whole what was rejected."""
        rows = []
        for decision in decisions:
            if decision.problem is None:
                continue
            record, problem = decision.record, decision.problem
            fault = record.fault
            command = record.command if record.envelope is not None else None
            rows.append(
                (
                    lane,
                    record.offset,
                    command.command_id if command else None,
                    command.author.id if command else None,
                    record.key,
                    record.value,
                    headers_to_json(record.headers),
                    fault.code if fault else problem.code,
                    str(fault) if fault else problem.detail,
                    decision.sqlstate,
                    decision.constraint,
                    decision.attempts + 1,
                    now,
                    command.mutations[0].type if command else None,
                )
            )
        if rows:
            await self.connection.executemany(sql.INSERT_DEAD, rows)


FAR_FUTURE = datetime(9999, 1, 1, tzinfo=UTC)


def _retry_at(at: datetime | None) -> datetime:
    """A follower has no time of its own: the head of its stream brings it."""
    return FAR_FUTURE if at is None else at


async def number(seq: int, decisions: Sequence[Decision]) -> list[Numbered]:
    """Number what there is to tell, after `seq`: in the order in which it was decided.

    So what a command released goes before what follows that command, and the last number on a row
    is the last change of it. It is much work, during which the server has work, too.
    """
    told = [d for d in decisions if not d.stays_parked]
    numbered: list[Numbered] = []
    for at in range(0, len(told), _AT_A_TIME):
        chunk = told[at : at + _AT_A_TIME]
        numbered += [Numbered.of(n, d) for n, d in enumerate(chunk, seq + at + 1)]
        await asyncio.sleep(0)
    return numbered


def _columns(kind: Kind, rows: Sequence[Row]) -> list[list[Any]]:
    return [[row[column] for row in rows] for column in kind.written_columns]
