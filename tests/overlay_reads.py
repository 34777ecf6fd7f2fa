"""Reads of the front end, each held against what `tests.overlay_world` says must be seen."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from frontend_api.kafka_producer import Published
from frontend_api.merge import Shown
from frontend_api.metrics import build_metrics
from frontend_api.overlay import OverlayState
from frontend_api.planning import Plan, Planner
from frontend_api.problems import ProblemError
from frontend_api.reading_ports import Positions, Wanted
from frontend_api.seen import OverlayIncomplete
from frontend_api.services import OverlayPort, Ports, build_services
from frontend_api.view import DatabaseUnavailable
from schema.catalog import ListOf, load_catalog
from schema.commands import Author
from schema.content import Row
from schema.envelope import Record
from schema.identifiers import CommandId, user_id_for
from schema.outcomes import Outcome
from schema.outcomes import State as Seen
from tests.fakes import (
    FakeCache,
    FakeClaims,
    FakeLog,
    FakeOutcomes,
    FakeRate,
    FakeStreams,
    fake_hub,
    frontend_settings,
)
from tests.installation import fresh_name
from tests.overlay_world import Ref, Sent, World, beyond

T = TypeVar("T")
CATALOG = load_catalog("schema.forum")
TOPIC, POST, REACTION = CATALOG["topic"], CATALOG["post"], CATALOG["reaction"]
TOPICS, POSTS, REACTIONS = (CATALOG.lists[n] for n in ("topics", "topic_posts", "post_reactions"))
ABOVE = {"post": ("topic", "topic_id"), "reaction": ("post", "post_id")}
AUTHORS = [Author(user_id_for(name), name) for name in ("ada", "eve", "mia")]


class OverlayUnderTest(OverlayPort, Protocol):
    """The overlay, and what the writer and an accident do to it."""

    async def settle_as(self, sent: Sent, outcome: Outcome) -> None: ...

    async def sweep_away(self, sent: Sent) -> None: ...

    async def forget_all(self) -> None: ...

    async def restored(self, found: Mapping[Sent, Outcome | None]) -> set[Sent]:
        """All of the log, with what the ledger says. Returns what is held now."""
        ...

    async def end(self) -> None: ...


class _Cache(FakeCache):
    """Notes of which state each cached answer is."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world
        self.rows_at: dict[tuple[str, uuid.UUID, uuid.UUID], int] = {}
        self.pages_at: dict[tuple[Any, ...], int] = {}

    def keep_rows(
        self, rows: Mapping[Wanted, Row | None], positions: Positions, reader: uuid.UUID
    ) -> None:
        super().keep_rows(rows, positions, reader)
        self.rows_at |= {(kind.name, i, reader): self._world.seen for kind, i in rows}

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
        super().keep_page(lst, parent, after, reader, asked, rows, positions)
        self.pages_at[lst.name, parent, after, reader] = self._world.seen


class _Log(FakeLog):
    """Can hold one record back, so that what was accepted later comes before it."""

    gate: asyncio.Event | None = None
    reached: asyncio.Event

    async def publish(
        self, record: Record, lane: int, timeout_s: float, on_late: Callable[[Published], None]
    ) -> Published:
        gate, self.gate = self.gate, None
        if gate is not None:
            self.reached.set()
            await gate.wait()
        return await super().publish(record, lane, timeout_s, on_late)


class Reads:
    """The front end's own accepting and reading, upon an overlay and a model of all the rest."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.prefix = fresh_name()
        self.world = World(CATALOG)
        self.log = _Log()
        self.cache = _Cache(self.world)
        self.overlay = self.open_overlay()
        self.whole = True
        self.late: set[asyncio.Task[None]] = set()
        self.hidden: list[Sent] = []
        settings = frontend_settings(prefix=self.prefix)
        ports = Ports(
            overlay=self.overlay,
            claims=FakeClaims(),
            database=self.world,
            cache=self.cache,
            publisher=self.log,
            streams=FakeStreams(),
            rate_limit=FakeRate(),
            outcomes=FakeOutcomes(),
            events=fake_hub(settings, CATALOG),
            log_id=lambda: uuid.UUID(int=1),
            log_full=lambda: False,
            on_unconfirmed=lambda entry: None,
            late=self.late,
        )
        services = build_services(settings, CATALOG, build_metrics(), ports)
        self.submissions, self.reader = services.submissions, services.reader

    def open_overlay(self) -> OverlayUnderTest:
        raise NotImplementedError

    def run(self, work: Awaitable[T]) -> T:
        async def awaited() -> T:
            return await work

        return self.loop.run_until_complete(awaited())

    # -- what authors do ------------------------------------------------------------------------

    def submit(self, planner: Planner, mode: str) -> bool | None:
        """True if accepted, False if refused, None if nobody can tell."""
        self.log.mode = mode
        plan = planner.plan(None, "")
        accepted: bool | None = True
        try:
            self.run(self._submitted(plan))
        except ProblemError as error:
            if error.problem.code != "outcome_unknown":
                return False
            accepted = None
        offset = None if mode == "lose" else len(self.log.records) - 1
        sent = self.note(plan.author.id, plan.command_id, offset)
        sent.placed = mode == "ok"
        if mode == "hide":
            self.hidden.append(sent)
        return accepted

    async def _submitted(self, plan: Plan) -> None:
        await self.submissions.submit(plan)
        await asyncio.gather(*self.submissions.late)  # confirmed, too

    def note(self, author: uuid.UUID, command: uuid.UUID, offset: int | None) -> Sent:
        """Take up into the model what the overlay was given."""
        entry, _ = self.run(self.overlay.look(author, CommandId(command)))
        assert entry is not None
        sent = Sent(entry.command, len(self.world.sent), offset)
        sent.blindly = not (self.whole and self.world.available)
        self.world.sent.append(sent)
        return sent

    def attempt(self, planner: Planner, mode: str, needs: Sequence[Ref]) -> None:
        """What the author sees decides whether it is accepted, if it could be read."""
        author = planner._author.id
        mode = mode if self.whole else "ok"  # the order of what nobody confirmed is lost with Redis
        rows = self.world.must_be_seen(author, self.world.seen).rows
        accepted = self.submit(planner, mode) is not False
        if self.world.available and self.whole:
            assert accepted is all(ref in rows for ref in needs)

    def visible(self, author: Author, type_: str, *, own: bool = False) -> list[Ref]:
        """Rows that the author must see now."""
        rows = self.world.must_be_seen(author.id, self.world.seen).rows
        refs = [r for r, row in rows.items() if r[0] == type_]
        return sorted(r for r in refs if not own or rows[r]["author_id"] == author.id)

    # -- what is held against the model ------------------------------------------------------------------

    def known(self) -> list[Ref]:
        found: dict[Ref, None] = {}
        for sent in self.world.sent:
            found |= dict.fromkeys((m.type, uuid.UUID(str(m.id))) for m in sent.command.mutations)
        return list(found)

    def lists(self) -> list[tuple[ListOf, uuid.UUID | None]]:
        found: list[tuple[ListOf, uuid.UUID | None]] = [(TOPICS, None)]
        for type_, row_id in self.known():
            if type_ in ("topic", "post"):
                found.append((POSTS if type_ == "topic" else REACTIONS, row_id))
        return found

    def check_row(self, author: uuid.UUID, ref: Ref) -> None:
        key = (*ref, author)
        at = self.world.seen if self.world.available else self.cache.rows_at.get(key)
        try:
            shown, view = self.run(self.reader.row(author, CATALOG[ref[0]], ref[1]))
        except DatabaseUnavailable:
            assert not self.world.available
            if at is not None:  # what was not there then may be there now: that is no answer
                assert ref not in self.world.history[at].rows
                wanted = self.world.must_be_seen(author, at).rows.get(ref)
                assert wanted is None or self.cannot_tell(author, at)
            return
        except OverlayIncomplete:
            assert not self.whole
            return
        assert (view.freshness.stale_s is None) is self.world.available
        assert view.freshness.whole is self.whole
        if not self.whole:
            assert view.freshness.overlay is OverlayState.REBUILDING
            return
        if not self.world.available and self.cannot_tell(author, at or 0):
            return
        wanted = self.world.must_be_seen(author, at or 0).rows.get(ref)
        seen = shown.row if shown is not None else None
        away = not self.world.available
        if away and None in (seen, wanted) and self.above_gone(author, ref, seen or wanted):
            return  # it is gone with what it goes with; or that is not known to be gone
        unsure = self.world.not_counted(author, at or 0)
        assert _said(seen, unsure) == _said(wanted, unsure), self.told(author, at, seen, wanted)
        if shown is not None:
            self.check_state(author, at or 0, ref, shown)

    def cannot_tell(self, author: uuid.UUID, at: int) -> bool:
        """A cached snapshot has no ledger: it does not know of a command whose place nobody knows."""
        ledger = self.world.history[at].ledger
        return any(
            s.held and not s.placed and s.command.command_id in ledger
            for s in self.world.sent
            if s.command.author.id == author
        )

    def above_gone(self, author: uuid.UUID, ref: Ref, row: Row | None) -> bool:
        """Each row is cached by itself: what it goes with may be known to be gone since."""
        if row is None or ref[0] not in ABOVE:
            return False
        above, field = ABOVE[ref[0]]
        parent = (above, row[field])
        at = self.cache.rows_at.get((*parent, author), 0)
        theirs = self.world.must_be_seen(author, at).rows.get(parent)
        return theirs is None or self.above_gone(author, parent, theirs)

    def check_state(self, author: uuid.UUID, at: int, ref: Ref, shown: Shown) -> None:
        """What the author waits for is said; what is saved or not his is not."""
        ledger = self.world.history[at].ledger
        touching = [
            s
            for s in self.world.undecided(author, at)
            if any((m.type, uuid.UUID(str(m.id))) == ref for m in s.command.mutations)
        ]
        parked = [
            s for s in touching if ledger.get(s.command.command_id, (0, None))[1] is Outcome.PARKED
        ]
        pending = [s for s in touching if s.told is not Outcome.SAVED or s in parked]
        if not pending:
            assert (shown.state, shown.command) == (Seen.SAVED, None)
            return
        told = any(s.told is Outcome.PARKED for s in touching)
        # What the overlay was told before the database that is read knows of it, Redis may have lost.
        assert shown.state is (Seen.PARKED if parked else Seen.PENDING) or (
            told and shown.state is Seen.PARKED
        )
        assert shown.command in {s.command.command_id for s in pending}

    def check_page(
        self,
        author: uuid.UUID,
        lst: ListOf,
        parent: uuid.UUID | None,
        after: uuid.UUID | None,
        limit: int,
    ) -> tuple[list[Row], uuid.UUID | None] | None:
        """The rows of one page and where to go on."""
        at = self.world.seen
        if not self.world.available:
            at = self.cache.pages_at.get((lst.name, parent, after, author), 0)
        try:
            found = self.run(self.reader.page(author, lst, parent, after, limit))
        except DatabaseUnavailable:
            assert not self.world.available
            return None
        except OverlayIncomplete:
            assert not self.whole
            return None
        if found is None:
            self.check_parent_gone(author, lst, parent)
            return None
        assert (found.freshness.stale_s is None) is self.world.available
        assert found.freshness.whole is self.whole
        rows = [shown.row for shown in found.page.items]
        assert len(rows) <= limit
        if not self.whole or (not self.world.available and self.cannot_tell(author, at)):
            return None
        state = self.world.must_be_seen(author, at)
        if not self.world.available and lst.parent and (lst.parent.name, parent) not in state.rows:
            # What it belongs to is not known to be gone: then his own changes in it are shown.
            saved = self.world.history[at].rows
            assert all(r["author_id"] == author or (lst.kind.name, r["id"]) in saved for r in rows)
            return None
        wanted = beyond(lst, state.listed(lst, parent), after)
        next_ = found.page.next_after
        left = beyond(lst, wanted, next_) if next_ is not None else []
        unsure = self.world.not_counted(author, at)
        # Nothing before the place where the next page begins may be left out.
        assert [_said(row, unsure) for row in [*rows, *left]] == [
            _said(row, unsure) for row in wanted
        ], self.told(author, at, [*rows, next_], wanted)
        if self.world.available and next_ is not None:
            assert len(rows) == limit or self.changes_of(author, lst) > limit
        for shown in found.page.items:
            self.check_state(author, at, (lst.kind.name, shown.row["id"]), shown)
        return rows, found.page.next_after

    def changes_of(self, author: uuid.UUID, lst: ListOf) -> int:
        """With more than a page is ready to look through, it may end early."""
        held = [s.command for s in self.world.sent if s.held and s.command.author.id == author]
        return sum(m.type == lst.kind.name for command in held for m in command.mutations)

    def check_parent_gone(self, author: uuid.UUID, lst: ListOf, parent: uuid.UUID | None) -> None:
        assert lst.parent is not None
        assert parent is not None
        if self.whole:
            ref = (lst.parent.name, parent)
            at = self.world.seen
            if not self.world.available:
                at = self.cache.rows_at.get((*ref, author), 0)
            row = self.world.must_be_seen(author, at).rows.get(ref)
            away = not self.world.available
            if away and (self.cannot_tell(author, at) or self.above_gone(author, ref, row)):
                return
            assert row is None

    def walk(self, author: uuid.UUID, lst: ListOf, parent: uuid.UUID | None, limit: int) -> None:
        rows: list[Row] = []
        after: uuid.UUID | None = None
        while (page := self.check_page(author, lst, parent, after, limit)) is not None:
            rows += page[0]
            after = page[1]
            if after is None and self.world.available:
                wanted = self.world.must_be_seen(author, self.world.seen).listed(lst, parent)
                assert [row["id"] for row in rows] == [row["id"] for row in wanted]
            if after is None:
                return

    def told(self, author: uuid.UUID, at: int | None, seen: Any, wanted: Any) -> str:
        undecided = [(s.offset, s.told, s.command) for s in self.world.undecided(author, at or 0)]
        return f"\nseen   {seen}\nwanted {wanted}\nstate  {at}\nundecided {undecided}"


def _said(row: Row | None, unsure: Collection[Ref]) -> Row | None:
    """The row without counters that nobody can be sure of."""
    if row is None or not unsure:
        return row
    kind = next(k for k in (TOPIC, POST, REACTION) if set(k.columns) == set(row))
    if (kind.name, row["id"]) not in unsure:
        return row
    return {name: value for name, value in row.items() if name not in kind.counters}
