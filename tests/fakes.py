"""In-memory stand-ins for Redis, Kafka and PostgreSQL, with the behaviour the front end relies on."""

import asyncio
import bisect
import copy
import json
import uuid
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic_core import to_json

from frontend_api.event_hub import EventHub
from frontend_api.idempotency import Answer, Claimed, InFlight, KeyReused
from frontend_api.kafka_producer import NotAccepted, OutcomeUnknown, Published
from frontend_api.merge import Entry, apply
from frontend_api.metrics import Metrics
from frontend_api.operation import Checks
from frontend_api.overlay import Count, Index, Laid, OverlayRead, OverlayState, Place
from frontend_api.reading_ports import Positions, Wanted
from frontend_api.redis_access import RedisUnavailable
from frontend_api.services import Ports, Services, build_services
from frontend_api.view import (
    CachedPage,
    CachedRow,
    DatabaseUnavailable,
    Glance,
    LanePosition,
    SnapshotPort,
)
from schema.catalog import Catalog, ListOf
from schema.commands import Command
from schema.content import Kind, Row
from schema.envelope import Keyring, Record, open_record
from schema.identifiers import CommandId
from schema.outcomes import Outcome
from schema.overlay import SETTLED, EntryState, Status, index_prefix
from schema.redis_keys import SHARED, short_id
from schema.scopes import Scope
from schema.settings import FrontendSettings
from tests.admin_fakes import AdminWorld

T = TypeVar("T")
SECRET = "a-secret-for-tests-only-0123456789abcdef"


def frontend_settings(**changes: Any) -> FrontendSettings:
    values = {
        "frontend_database_url": "postgresql://nobody@127.0.0.1:1/none",
        "signing_keys": f"k1:{SECRET}",
        "jwt_secret": SECRET,
    }
    return FrontendSettings.model_validate(values | changes)


class FakeOverlay:
    """Redis with the overlay's scripts. Set `available` to False to take it away.

    `lose()` is what a flush does; `state` is what its marker would say of every read.
    """

    def __init__(self) -> None:
        self.available = True
        self.state = OverlayState.COMPLETE
        self.lose()

    def lose(self) -> None:
        """Forget everything."""
        self.entries: dict[uuid.UUID, dict[uuid.UUID, tuple[Command, Status]]] = {}
        """By owner (an author or `SHARED`) and command."""
        self.indexes: dict[str, list[str]] = {}
        self.scopes: dict[tuple[uuid.UUID, uuid.UUID], Sequence[Scope]] = {}
        self.tombstones: set[tuple[uuid.UUID, uuid.UUID]] = set()
        self.sequence = 0

    def _must_answer(self) -> None:
        if not self.available:
            raise RedisUnavailable

    async def put(self, command: Command, scopes: Sequence[Scope]) -> None:
        self._must_answer()
        self._add(command, command.author.id, scopes, EntryState.UNCONFIRMED, None)

    async def confirm(self, command: Command, lane: int | None, offset: int | None) -> bool:
        self._must_answer()
        owner = command.author.id
        place = None if lane is None or offset is None else (lane, offset)
        self._change(command, owner, EntryState.PENDING, place, only=EntryState.UNCONFIRMED)
        known = (owner, command.command_id) in self.tombstones
        return known or command.command_id in self.entries.get(owner, {})

    async def confirm_all(
        self, confirmed: Sequence[tuple[Command, Place | None]]
    ) -> Sequence[bool]:
        return [await self.confirm(c, *(place or (None, None))) for c, place in confirmed]

    async def lay(self, laid: Laid) -> bool:
        self._must_answer()
        command, owner = laid.command, laid.owner or laid.command.author.id
        self._add(command, owner, laid.scopes, EntryState.PENDING, laid.place)
        self._change(command, owner, EntryState.PENDING, laid.place, only=EntryState.UNCONFIRMED)
        return True

    async def restore(self, laid: Iterable[Laid]) -> None:
        for one in laid:
            await self.lay(one)

    async def withdraw(self, command: Command) -> None:
        await self.forget(command.author.id, command.command_id)

    async def forget(self, author: uuid.UUID, command: uuid.UUID) -> None:
        self._must_answer()
        _, status = self.entries.get(author, {}).get(command, (None, None))
        if status is not None and status.state is EntryState.UNCONFIRMED:
            self._remove(author, command)

    async def read(
        self,
        author: uuid.UUID,
        indexes: Sequence[Index],
        shared: Sequence[Index] = (),
        *,
        counters: bool = False,
    ) -> OverlayRead:
        self._must_answer()
        own, others = self._shown(author, author), self._shown(SHARED, author) if shared else {}
        found = [self._members(index) for index in (*indexes, *shared)]
        members = found[: len(indexes)]
        for some in found[len(indexes) :]:
            members.append([m for m in some if uuid.UUID(m[-36:]) in others])
        ids = {uuid.UUID(m[-36:]) for some in members for m in some}
        ends = [
            uuid.UUID(m[-1][:36]) if index.kind != "row" and len(m) >= index.limit else None
            for index, m in zip((*indexes, *shared), found, strict=True)
        ]
        return OverlayRead(
            empty=not self.entries.get(author) and not others,
            state=self.state,
            members=members,
            entries={i: entry for i, entry in {**others, **own}.items() if i in ids},
            ends=ends,
            counters=self._counters(author) if counters else None,
        )

    def _counters(self, author: uuid.UUID) -> frozenset[str]:
        owners = {short_id(author), short_id(SHARED)}
        keys = (key.partition("{")[2].split("}:") for key, found in self.indexes.items() if found)
        return frozenset(
            index_prefix(name)
            for owner, name in keys
            if owner in owners and name.startswith("count:")
        )

    async def counts(
        self,
        author: uuid.UUID,
        keys: Sequence[str],
        positions: Mapping[int, int],
        shared: Sequence[str] = (),
    ) -> tuple[list[Count], OverlayState]:
        self._must_answer()
        own, others = self._shown(author, author), self._shown(SHARED, author)
        found = []
        for at, key in enumerate(keys):
            certain: dict[str, int] = {}
            for column, delta, _, status in self._adding(others, shared[at] if shared else ""):
                place = positions.get(status.lane) if status.lane is not None else None
                passed = place is not None and status.offset is not None and status.offset < place
                if status.state is EntryState.PARKED or not passed:
                    certain[column] = certain.get(column, 0) + delta
            found.append(Count(certain, list(self._adding(own, key))))
        return found, self.state

    def _adding(
        self, entries: Mapping[uuid.UUID, Entry], key: str
    ) -> Iterator[tuple[str, int, uuid.UUID, Status]]:
        for member in self.indexes.get(key, []):
            column, delta, *_, command = member.split(":")
            entry = entries.get(uuid.UUID(command))
            if entry is not None:
                yield column, int(delta), uuid.UUID(command), entry.status

    async def look(
        self, author: uuid.UUID, command_id: CommandId
    ) -> tuple[Entry | None, OverlayState]:
        self._must_answer()
        held = self.entries.get(author, {}).get(command_id)
        return Entry(*held) if held is not None else None, self.state

    async def newest(
        self, author: uuid.UUID, limit: int, before: CommandId | None = None
    ) -> tuple[list[Entry], OverlayState]:
        self._must_answer()
        held = self.entries.get(author, {})
        ids = sorted((i for i in held if before is None or i.int < before.int), reverse=True)
        return [Entry(*held[i]) for i in ids[:limit]], self.state

    def settle(self, command: Command, state: EntryState, lane: int, offset: int) -> None:
        """What the writer does after its commit."""
        for owner in (command.author.id, SHARED):
            if command.command_id in self.entries.get(owner, {}):
                self._change(command, owner, state, (lane, offset))
            elif state in SETTLED:
                self.tombstones.add((owner, command.command_id))

    def sweep(self, command: Command) -> None:
        """What the writer does after the grace period."""
        for owner in (command.author.id, SHARED):
            self._remove(owner, command.command_id)
            self.tombstones.discard((owner, command.command_id))

    def _add(
        self,
        command: Command,
        owner: uuid.UUID,
        scopes: Sequence[Scope],
        state: EntryState,
        place: tuple[int, int] | None,
    ) -> None:
        held, id_ = self.entries.setdefault(owner, {}), command.command_id
        if id_ in held or (owner, id_) in self.tombstones:
            return
        self.sequence += 1
        held[id_] = (command, Status(state, self.sequence, *(place or (None, None))))
        self.scopes[owner, id_] = scopes
        for scope in scopes:
            members = self.indexes.setdefault(scope.key, [])
            bisect.insort(members, scope.member)

    def _remove(self, owner: uuid.UUID, command: uuid.UUID) -> None:
        self.entries.get(owner, {}).pop(command, None)
        for scope in self.scopes.pop((owner, command), ()):
            self.indexes[scope.key].remove(scope.member)

    def _change(
        self,
        command: Command,
        owner: uuid.UUID,
        state: EntryState,
        place: tuple[int, int] | None,
        only: EntryState | None = None,
    ) -> None:
        held = self.entries.get(owner, {}).get(command.command_id)
        if held is None or held[1].state in SETTLED or only not in (None, held[1].state):
            return
        lane, offset = place or (None, None)
        status = replace(held[1], state=state, lane=lane, offset=offset)
        self.entries[owner][command.command_id] = (held[0], status)

    def _shown(self, owner: uuid.UUID, reader: uuid.UUID) -> dict[uuid.UUID, Entry]:
        own = owner != SHARED
        return {
            i: Entry(command, status, own)
            for i, (command, status) in self.entries.get(owner, {}).items()
            if status.state is not EntryState.REJECTED and (own or command.author.id != reader)
        }

    def _members(self, index: Index) -> list[str]:
        members = self.indexes.get(index.key, [])
        if index.kind == "row":
            return list(members)
        from_ = index.from_.lstrip("(")
        if index.kind == "asc":
            found = [m for m in members if index.from_ == "-" or m > from_]
        else:
            found = [m for m in reversed(members) if index.from_ == "+" or m < from_]
        taken = found[: index.limit]
        if len(taken) == index.limit:
            taken += [m for m in found[index.limit :] if m[:36] == taken[-1][:36]]
        return taken


class FakeClaims:
    """Claims of Idempotency-Keys that never grow stale by themselves."""

    def __init__(self) -> None:
        self.held: dict[tuple[uuid.UUID, str], dict[str, Any]] = {}

    async def claim(
        self, author: uuid.UUID, key: str, fingerprint: str, ids: Sequence[uuid.UUID]
    ) -> Claimed | Answer:
        held = self.held.get((author, key))
        if held is None:
            self.held[author, key] = {"fingerprint": fingerprint, "ids": tuple(ids), "open": False}
            return Claimed(tuple(ids))
        if held["fingerprint"] != fingerprint:
            raise KeyReused
        if "answer" in held:
            answer: Answer = held["answer"]
            return answer
        if not held["open"]:
            raise InFlight
        held["open"] = False
        return Claimed(held["ids"], again=True)

    async def answer(
        self, author: uuid.UUID, key: str, ids: Sequence[uuid.UUID], answer: Answer
    ) -> None:
        kept = json.loads(to_json(answer.body))  # ids and times come back as JSON has them
        self.held[author, key]["answer"] = replace(answer, body=kept)

    async def release(self, author: uuid.UUID, key: str, ids: Sequence[uuid.UUID]) -> None:
        self.held.pop((author, key), None)

    async def reopen(self, author: uuid.UUID, key: str, ids: Sequence[uuid.UUID]) -> None:
        self.held[author, key]["open"] = True

    async def first(
        self, author: uuid.UUID, key: str, fingerprint: str, ids: Sequence[uuid.UUID]
    ) -> bool | None:
        held = {"fingerprint": fingerprint, "ids": tuple(ids), "open": True}
        return bool(self.held.setdefault((author, key), held)["ids"] == tuple(ids))


class FakeLog:
    """One lane. `mode`: ok, refuse (certainly not in the log), lose or hide (nobody knows)."""

    def __init__(self) -> None:
        self.mode = "ok"
        self.records: list[Record] = []
        self.late: list[Callable[[Published], None]] = []

    async def publish(
        self, record: Record, lane: int, timeout_s: float, on_late: Callable[[Published], None]
    ) -> Published:
        if self.mode == "refuse":
            raise NotAccepted("refused by the fake")
        if self.mode == "lose":
            raise OutcomeUnknown("lost by the fake")
        self.records.append(record)
        if self.mode == "hide":
            self.late.append(on_late)
            raise OutcomeUnknown("hidden by the fake")
        return Published(lane, len(self.records) - 1)

    def commands(self) -> list[Command]:
        keyring = Keyring.parse(f"k1:{SECRET}")
        return [open_record(r.key, r.value, r.headers, keyring).command for r in self.records]


@dataclass
class Tables:
    """One state of the database."""

    rows: dict[str, dict[uuid.UUID, Row]] = field(default_factory=dict)
    position: int = 0
    ledger: dict[uuid.UUID, dict[str, Any]] = field(default_factory=dict)

    def table(self, name: str) -> dict[uuid.UUID, Row]:
        return self.rows.setdefault(name, {})


class FakeSnapshot:
    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def rows(self, kind: Kind, ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, Row]:
        table = self._tables.table(kind.name)
        return {i: dict(table[i]) for i in ids if i in table}

    async def page(
        self,
        lst: ListOf,
        limit: int,
        after: uuid.UUID | None,
        parent: uuid.UUID | None,
        reader: uuid.UUID,
    ) -> list[Row]:
        sign = -1 if lst.listing.newest_first else 1
        by, private = lst.listing.by, lst.kind.model.private_to
        rows = [
            row
            for row in self._tables.table(lst.kind.name).values()
            if (by is None or row[by] == parent)
            and (private is None or row[private] == reader)
            and (after is None or sign * row["id"].int > sign * after.int)
        ]
        return [dict(r) for r in sorted(rows, key=lambda r: sign * r["id"].int)[:limit]]

    async def positions(self) -> dict[int, LanePosition]:
        return {0: LanePosition(self._tables.position, 0)}

    async def decisions(
        self, author: uuid.UUID, commands: Sequence[uuid.UUID]
    ) -> list[Mapping[str, Any]]:
        found = [self._tables.ledger.get(c) for c in commands]
        return [row for row in found if row is not None and row["author_id"] == author]

    async def commands(
        self, author: uuid.UUID, before: uuid.UUID | None, limit: int
    ) -> list[Mapping[str, Any]]:
        found: list[Mapping[str, Any]] = [
            row
            for row in self._tables.ledger.values()
            if row["author_id"] == author and (before is None or row["command_id"] < before)
        ]
        return sorted(found, key=lambda row: row["command_id"].int, reverse=True)[:limit]


def glancing_page(
    lst: ListOf,
    limit: int,
    after: uuid.UUID | None,
    parent: uuid.UUID | None,
    reader: uuid.UUID,
    commands: Sequence[uuid.UUID] | None,
) -> Callable[[SnapshotPort], Awaitable[Glance]]:
    """The same for a page; without commands, it says nothing of lanes and ledger."""
    above = [(lst.parent, parent)] if lst.parent is not None and parent is not None else []

    async def work(snapshot: SnapshotPort) -> Glance:
        seen = await glancing(above, reader, commands or [])(snapshot)
        if commands is None:
            seen = Glance({}, (), seen.rows)
        return replace(seen, page=await snapshot.page(lst, limit, after, parent, reader))

    return work


def glancing(
    wanted: Sequence[Wanted], author: uuid.UUID, commands: Sequence[uuid.UUID]
) -> Callable[[SnapshotPort], Awaitable[Glance]]:
    """What one statement does, in several steps."""

    async def work(snapshot: SnapshotPort) -> Glance:
        rows = {
            (kind.name, row_id): row
            for kind, one in wanted
            for row_id, row in (await snapshot.rows(kind, [one])).items()
        }
        ledger = await snapshot.decisions(author, commands)
        return Glance(await snapshot.positions(), ledger, rows)

    return work


class FakeDatabase:
    """PostgreSQL behind one lane. `lag`: how many commits the reads are behind."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.available = True
        self.lag = 0
        self.history = [Tables()]

    @property
    def tables(self) -> Tables:
        return self.history[-1]

    async def read(
        self, work: Callable[[SnapshotPort], Awaitable[T]], timeout_s: float | None = None
    ) -> T:
        if not self.available:
            raise DatabaseUnavailable
        seen = self.history[max(0, len(self.history) - 1 - self.lag)]
        return await work(FakeSnapshot(seen))

    async def glance(
        self,
        wanted: Sequence[Wanted],
        author: uuid.UUID,
        commands: Sequence[uuid.UUID],
        timeout_s: float | None = None,
    ) -> Glance:
        return await self.read(glancing(wanted, author, commands), timeout_s)

    async def glance_page(
        self,
        lst: ListOf,
        limit: int,
        after: uuid.UUID | None,
        parent: uuid.UUID | None,
        reader: uuid.UUID,
        commands: Sequence[uuid.UUID] | None,
    ) -> Glance:
        return await self.read(glancing_page(lst, limit, after, parent, reader, commands))

    def apply(self, command: Command, *, reject: bool = False) -> Outcome:
        """Commit the command at the position, as the writer would, permission aside."""
        tables = copy.deepcopy(self.tables)
        outcome = Outcome.REJECTED
        if not reject:
            outcome = Outcome.SAVED if self._mutate(tables, command) else Outcome.REJECTED
        if outcome is Outcome.REJECTED:
            tables = copy.deepcopy(self.tables)
        tables.ledger[command.command_id] = {
            "command_id": command.command_id,
            "author_id": command.author.id,
            "outcome": outcome,
            "lane": 0,
            "offset": tables.position,
            "accepted_at": command.accepted_at,
            "decided_at": datetime.now(tz=UTC),
            "effects": [
                {"type": m.type, "id": str(m.id), "op": m.op, "version": 1}
                for m in command.mutations
            ],
            "problem": None,
            "duplicate_of": None,
        }
        tables.position += 1
        self.history.append(tables)
        return outcome

    def _mutate(self, tables: Tables, command: Command) -> bool:
        for mutation in command.mutations:
            kind = self.catalog[mutation.type]
            table = tables.table(kind.name)
            before = table.get(mutation.id)
            if before is None and mutation.op != "create":
                return False
            after = apply(kind, before, command, mutation)
            for ref, column in kind.model.counted_in.items():
                delta = (after is not None) - (before is not None)
                parent = (after or before or {})[ref]
                counted = tables.table(self.catalog.parent(kind, ref).name).get(parent)
                if counted is not None:
                    counted[column] += delta
            table.pop(mutation.id, None)
            if after is not None:
                table[mutation.id] = after
        return True


class FakeCache:
    """What the database said last, kept for ever; `age_s` is what it claims."""

    def __init__(self) -> None:
        self.kept_rows: dict[tuple[str, uuid.UUID, uuid.UUID], CachedRow] = {}
        self.kept_pages: dict[tuple[Any, ...], tuple[int, CachedPage]] = {}
        self.age_s = 30.0

    def wants_rows(
        self, refs: Sequence[Wanted], reader: uuid.UUID, *, seldom: bool = False
    ) -> bool:
        return True

    def keep_rows(
        self, rows: Mapping[Wanted, Row | None], positions: Positions, reader: uuid.UUID
    ) -> None:
        for (kind, row_id), row in rows.items():
            self.kept_rows[kind.name, row_id, reader] = CachedRow(row, positions, self.age_s)

    def wants_page(
        self, lst: ListOf, parent: uuid.UUID | None, after: uuid.UUID | None, reader: uuid.UUID
    ) -> bool:
        return True

    def keep_page(
        self,
        lst: ListOf,
        parent: uuid.UUID | None,
        after: uuid.UUID | None,
        reader: uuid.UUID,
        asked: int,
        rows: Sequence[Row],
        positions: Positions,
    ) -> None:
        page = CachedPage(rows, len(rows) < asked, positions, self.age_s)
        self.kept_pages[lst.name, parent, after, reader] = (asked, page)

    async def rows(
        self, refs: Sequence[Wanted], reader: uuid.UUID
    ) -> Mapping[tuple[str, uuid.UUID], CachedRow]:
        found = {(k.name, i): self.kept_rows.get((k.name, i, reader)) for k, i in refs}
        return {ref: row for ref, row in found.items() if row is not None}

    async def page(
        self,
        lst: ListOf,
        parent: uuid.UUID | None,
        after: uuid.UUID | None,
        reader: uuid.UUID,
        limit: int,
    ) -> CachedPage | None:
        kept = self.kept_pages.get((lst.name, parent, after, reader))
        if kept is None:
            return None
        _, page = kept
        return replace(
            page, rows=page.rows[:limit], complete=page.complete and len(page.rows) <= limit
        )


class FakeStreams:
    def __init__(self) -> None:
        self.known: dict[uuid.UUID, uuid.UUID] = {}

    async def get(self, row_id: uuid.UUID) -> uuid.UUID | None:
        return self.known.get(row_id)

    def remember(self, streams: Mapping[uuid.UUID, uuid.UUID]) -> None:
        self.known |= streams


class FakeRate:
    async def count(self, author: uuid.UUID) -> dict[str, str]:
        return {}


class FakeOutcomes:
    """Outcomes that a test tells."""

    def __init__(self) -> None:
        self.waiting: dict[uuid.UUID, asyncio.Future[dict[str, Any]]] = {}

    @contextmanager
    def expecting(self, command: uuid.UUID) -> Iterator["asyncio.Future[dict[str, Any]]"]:
        loop = asyncio.get_running_loop()
        yield self.waiting.setdefault(command, loop.create_future())


def fake_hub(settings: FrontendSettings, catalog: Catalog) -> EventHub:
    """The real hub with one empty partition; a test feeds it by `take(0, offset, value)`."""
    hub = EventHub(
        lambda author, partitions: 0,
        per_author=settings.streams_per_author,
        most=settings.max_streams,
        notice_type=catalog.notice.name,
    )
    hub.places({0: 0}, {0: 0})
    return hub


class FakeBackends:
    """Everything a front end is built upon, in memory; the test holds the other end."""

    def __init__(self, settings: FrontendSettings, catalog: Catalog, metrics: Metrics) -> None:
        self.catalog = catalog
        self.overlay = FakeOverlay()
        self.claims = FakeClaims()
        self.log = FakeLog()
        self.database = FakeDatabase(catalog)
        self.cache = FakeCache()
        self.streams = FakeStreams()
        self.outcomes = FakeOutcomes()
        self.events = fake_hub(settings, catalog)
        self.log_id: uuid.UUID | None = uuid.uuid4()
        self.log_full = False
        self.suspected: list[Entry] = []
        self.services: Services = build_services(
            settings,
            catalog,
            metrics,
            Ports(
                overlay=self.overlay,
                claims=self.claims,
                database=self.database,
                cache=self.cache,
                publisher=self.log,
                streams=self.streams,
                rate_limit=FakeRate(),
                outcomes=self.outcomes,
                events=self.events,
                log_id=lambda: self.log_id,
                log_full=lambda: self.log_full,
                on_unconfirmed=self.suspected.append,
                late=set(),
            ),
        )
        self.checks = Checks(
            kafka=self._kafka,
            log_known=lambda: self.log_id is not None,
            log_full=lambda: self.log_full,
            database=lambda: self.database.available,
            overlay=lambda: self.overlay.state is OverlayState.COMPLETE,
            ping_redis=self._ping,
        )
        self.operation = AdminWorld()
        self.admin = self.operation.parts if settings.admin else None
        self.applied = 0
        self.settled = 0
        self.connections: set[Any] = set()
        """Of the HTTP server, where there is one."""

    def start(self) -> None:
        return

    def end_streams(self) -> None:
        self.events.close()

    async def close(self) -> None:
        return

    async def _kafka(self) -> bool:
        return self.log.mode == "ok"

    async def _ping(self) -> None:
        if not self.overlay.available:
            raise RedisUnavailable

    def apply_next(self, *, reject: bool = False) -> bool:
        """Let the writer commit one command. False if there is none."""
        commands = self.log.commands()
        if self.applied >= len(commands):
            return False
        self.database.apply(commands[self.applied], reject=reject)
        self.applied += 1
        return True

    def settle_next(self) -> bool:
        """Let the writer settle one committed command. False if there is none."""
        if self.settled >= self.applied:
            return False
        command = self.log.commands()[self.settled]
        outcome = self.database.tables.ledger[command.command_id]["outcome"]
        state = EntryState.SAVED if outcome is Outcome.SAVED else EntryState.REJECTED
        self.overlay.settle(command, state, 0, self.settled)
        self.settled += 1
        return True
