"""A machine that does everything that can happen to pending changes, in any order, and reads.

Each read is held against `tests.overlay_world`: nothing missing, nothing doubled, no stale count, the
versions right, nothing of others that is not saved, and pages that neither skip nor repeat.
"""

import asyncio

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from frontend_api.kafka_producer import Published
from frontend_api.planning import Planner
from schema.commands import Author
from schema.content import Kind
from schema.outcomes import Outcome
from tests.overlay_reads import AUTHORS, CATALOG, POST, REACTION, TOPIC, Reads
from tests.overlay_world import FINAL, Sent

authors = st.sampled_from(AUTHORS)
any_of_them = st.integers(0, 10_000)
modes = st.sampled_from(["ok", "ok", "ok", "ok", "hide", "lose"])
limits = st.integers(1, 6)


class OverlayMachine(Reads, RuleBasedStateMachine):
    """Whoever derives from it says upon which overlay: `open_overlay`."""

    def __init__(self) -> None:
        RuleBasedStateMachine.__init__(self)
        Reads.__init__(self)

    # -- what authors do ------------------------------------------------------------------------

    @rule(author=authors, mode=modes)
    def open_topic(self, author: Author, mode: str) -> None:
        planner = Planner(CATALOG, author)
        planner.create(TOPIC, {"title": "T", "body": "first"})
        self.attempt(planner, mode, [])

    @rule(author=authors, which=any_of_them, mode=modes, times=st.integers(1, 4))
    def post(self, author: Author, which: int, mode: str, times: int) -> None:
        for _ in range(times):
            if topics := self.visible(author, "topic"):
                topic = topics[which % len(topics)]
                planner = Planner(CATALOG, author)
                planner.create(POST, {"topic_id": str(topic[1]), "body": "B"})
                self.attempt(planner, mode, [topic])

    @rule(author=authors, which=any_of_them, mode=modes)
    def post_and_rename(self, author: Author, which: int, mode: str) -> None:
        if topics := self.visible(author, "topic", own=True):
            topic = topics[which % len(topics)]
            planner = Planner(CATALOG, author)
            planner.change(TOPIC, topic[1], {"title": f"T{which}"}, None)
            planner.create(POST, {"topic_id": str(topic[1]), "body": "B"})
            self.attempt(planner, mode, [topic])

    @rule(author=authors, kind=st.sampled_from([TOPIC, POST]), which=any_of_them, mode=modes)
    def edit(self, author: Author, kind: Kind, which: int, mode: str) -> None:
        if mine := self.visible(author, kind.name, own=True):
            ref = mine[which % len(mine)]
            planner = Planner(CATALOG, author)
            field = "title" if kind is TOPIC else "body"
            planner.change(kind, ref[1], {field: f"edited {len(self.world.sent)}"}, None)
            self.attempt(planner, mode, [ref])

    @rule(author=authors, kind=st.sampled_from([TOPIC, POST]), which=any_of_them)
    def edit_twice_at_once(self, author: Author, kind: Kind, which: int) -> None:
        """Of two requests under way, the second one comes first into the log."""
        if mine := self.visible(author, kind.name, own=True):
            ref = mine[which % len(mine)]
            field = "title" if kind is TOPIC else "body"
            plans = []
            for number in (2, 1):
                planner = Planner(CATALOG, author)
                text = f"edited {len(self.world.sent)} {number}"
                planner.change(kind, ref[1], {field: text}, None)
                plans.append(planner.plan(None, ""))

            async def cross() -> None:
                gate = self.log.gate = asyncio.Event()
                self.log.reached = asyncio.Event()
                slow = asyncio.create_task(self.submissions.submit(plans[0]))
                await self.log.reached.wait()
                await self.submissions.submit(plans[1])
                gate.set()
                await slow

            self.log.mode = "ok"
            self.run(cross())
            for offset, plan in enumerate(reversed(plans), start=len(self.log.records) - 2):
                self.note(author.id, plan.command_id, offset)
            self.check_row(author.id, ref)

    @rule(author=authors, kind=st.sampled_from([TOPIC, POST, POST]), which=any_of_them, mode=modes)
    def delete(self, author: Author, kind: Kind, which: int, mode: str) -> None:
        if mine := self.visible(author, kind.name, own=True):
            ref = mine[which % len(mine)]
            planner = Planner(CATALOG, author)
            planner.delete(kind, ref[1], None)
            self.attempt(planner, mode, [ref])

    @rule(author=authors, which=any_of_them, emoji=st.sampled_from("ab"), mode=modes)
    def react(self, author: Author, which: int, emoji: str, mode: str) -> None:
        if posts := self.visible(author, "post"):
            post = posts[which % len(posts)]
            planner = Planner(CATALOG, author)
            planner.create(REACTION, {"post_id": str(post[1]), "emoji": emoji})
            self.attempt(planner, mode, [post])

    @rule(author=authors, which=any_of_them, mode=modes)
    def take_back(self, author: Author, which: int, mode: str) -> None:
        if mine := self.visible(author, "reaction", own=True):
            ref = mine[which % len(mine)]
            row = self.world.must_be_seen(author.id, self.world.seen).rows[ref]
            planner = Planner(CATALOG, author)
            known = {name: row[name] for name in REACTION.model.natural_key}
            planner.delete(REACTION, ref[1], None, known=known)
            self.attempt(planner, mode, [ref])

    @precondition(lambda self: self.hidden)
    @rule(which=any_of_them)
    def confirm_late(self, which: int) -> None:
        at = which % len(self.hidden)
        sent, on_late = self.hidden.pop(at), self.log.late.pop(at)

        async def confirm() -> None:
            on_late(Published(0, sent.offset))
            await asyncio.gather(*self.late)

        self.run(confirm())

    @rule(which=any_of_them)
    def give_up_a_ghost(self, which: int) -> None:
        ghosts = [s for s in self.world.sent if s.offset is None and s.held]
        if ghosts:
            ghost = ghosts[which % len(ghosts)]
            self.run(self.overlay.withdraw(ghost.command))
            ghost.held = False

    # -- what becomes of it -----------------------------------------------------------------------

    @rule(
        wish=st.sampled_from([Outcome.SAVED, Outcome.SAVED, Outcome.REJECTED, Outcome.PARKED]),
        times=st.integers(1, 3),
    )
    def apply(self, wish: Outcome, times: int) -> None:
        for _ in range(times):
            self.world.apply(wish)

    @precondition(lambda self: self.world.waiting)
    @rule(which=any_of_them)
    def retry_parked(self, which: int) -> None:
        streams = sorted(self.world.waiting)
        self.world.retry(streams[which % len(streams)])

    @rule(which=any_of_them, all_of_them=st.booleans())
    def settle(self, which: int, all_of_them: bool) -> None:
        if open_ := self.to_settle():
            for sent in open_ if all_of_them else [open_[which % len(open_)]]:
                self.settle_one(sent)

    def to_settle(self) -> list[Sent]:
        ledger = self.world.now.ledger
        return [
            s
            for s in self.world.logged()
            if s.command.command_id in ledger
            and s.told not in FINAL
            and s.told is not ledger[s.command.command_id][1]
        ]

    def settle_one(self, sent: Sent) -> None:
        _, outcome = self.world.now.ledger[sent.command.command_id]
        self.run(self.overlay.settle_as(sent, outcome))
        sent.told, sent.placed = outcome, True

    @rule(which=any_of_them)
    def settle_once_more(self, which: int) -> None:
        self.say_what_is_out_of_date(which)

    def say_what_is_out_of_date(self, which: int) -> None:
        """A writer that was held up says what is out of date."""
        if told := [s for s in self.world.logged() if s.told in FINAL and s.held]:
            self.run(self.overlay.settle_as(told[which % len(told)], Outcome.PARKED))

    @rule(which=any_of_them, all_of_them=st.booleans())
    def sweep(self, which: int, all_of_them: bool) -> None:
        """A settled entry goes when its grace is over, which is when no replica is behind it."""
        if over := self.to_sweep():
            for sent in over if all_of_them else [over[which % len(over)]]:
                self.sweep_one(sent)

    def to_sweep(self) -> list[Sent]:
        ledger = self.world.history[self.world.seen].ledger
        return [
            s
            for s in self.world.logged()
            if s.held
            and s.told in FINAL
            and ledger.get(s.command.command_id, (0, None))[1] in FINAL
        ]

    def sweep_one(self, sent: Sent) -> None:
        self.run(self.overlay.sweep_away(sent))
        sent.held = False

    @rule(commits=st.integers(1, 4))
    def replay_on_the_replica(self, commits: int) -> None:
        self.world.seen = min(self.world.seen + commits, len(self.world.history) - 1)

    @rule()
    def database_away_or_back(self) -> None:
        self.world.available = not self.world.available

    @precondition(lambda self: self.whole)
    @rule()
    def lose_redis(self) -> None:
        self.whole = False
        self.run(self.overlay.forget_all())
        for sent in self.world.sent:
            sent.held = sent.offset is not None and sent.held
            sent.told = None
        self.hidden.clear()
        self.log.late.clear()

    @precondition(lambda self: not self.whole and self.world.available)
    @rule()
    def rebuild(self) -> None:
        """From the log; of what was saved lately, too, since a replica may not have it."""
        ledger = self.world.history[self.world.seen].ledger
        found = {s: ledger.get(s.command.command_id, (0, None))[1] for s in self.world.logged()}
        restored = self.run(self.overlay.restored(found))
        for sent, outcome in found.items():
            sent.held = sent in restored
            if sent.held:
                sent.told = sent.told if sent.told in FINAL else outcome or sent.told
                sent.placed = True
        self.whole = True

    # -- what is seen -----------------------------------------------------------------------------

    @rule(author=authors, which=any_of_them)
    def read_a_row(self, author: Author, which: int) -> None:
        if refs := self.known():
            self.check_row(author.id, refs[which % len(refs)])

    @rule(author=authors, which=any_of_them, limit=limits)
    def read_a_page(self, author: Author, which: int, limit: int) -> None:
        lists = self.lists()
        lst, parent = lists[which % len(lists)]
        after = None
        if which % 3 == 0 and (refs := [r for r in self.known() if r[0] == lst.kind.name]):
            after = refs[which % len(refs)][1]
        self.check_page(author.id, lst, parent, after, limit)

    @precondition(lambda self: self.world.available and self.whole)
    @rule(author=authors, which=any_of_them, limit=limits)
    def walk_a_list(self, author: Author, which: int, limit: int) -> None:
        lists = self.lists()
        self.walk(author.id, *lists[which % len(lists)], limit)

    # -- the end ----------------------------------------------------------------------------------

    def teardown(self) -> None:
        try:
            self.come_to_rest()
        finally:
            self.run(self.overlay.end())
            self.loop.close()

    def come_to_rest(self) -> None:
        """When all is over, everybody sees what is saved, and nothing else."""
        self.world.available = True
        if not self.whole:
            self.rebuild()
        self.stack_changes()
        self.read_all()
        for wish in (Outcome.REJECTED, Outcome.PARKED):
            self.world.apply(wish)
        self.world.seen = len(self.world.history) - 1
        self.read_all()
        self.read_all_cached()
        self.lose_everything()
        self.drain()
        self.change_blindly()
        self.drain()

    def stack_changes(self) -> None:
        """Several of one row; and a row that is deleted, although nobody confirmed its creation."""
        for author, kind in zip(AUTHORS[1:], (TOPIC, POST), strict=True):
            for ref in self.visible(author, kind.name, own=True)[:1]:
                for number in range(4):
                    planner = Planner(CATALOG, author)
                    field = "title" if kind is TOPIC else "body"
                    planner.change(kind, ref[1], {field: f"stacked {number}"}, None)
                    assert self.submit(planner, "ok")
        for topic in self.visible(AUTHORS[0], "topic")[:1]:
            planner = Planner(CATALOG, AUTHORS[0])
            post = planner.create(POST, {"topic_id": str(topic[1]), "body": "B"})
            assert self.submit(planner, "lose") is None
            planner = Planner(CATALOG, AUTHORS[0])
            planner.delete(POST, post, None)
            assert self.submit(planner, "ok")

    def lose_everything(self) -> None:
        """Redis is lost while the writer goes on: once with a replica that lags, once without."""
        self.lose_redis()
        for wish in (Outcome.SAVED, Outcome.REJECTED, Outcome.PARKED):
            self.world.apply(wish)
        for sent in self.to_settle():
            self.settle_one(sent)
        self.rebuild()
        self.read_all()
        self.lose_redis()
        self.world.seen = len(self.world.history) - 1
        self.rebuild()
        self.read_all_cached()
        self.read_all()

    def drain(self) -> None:
        world = self.world
        world.apply(Outcome.REJECTED)
        while world.apply(Outcome.SAVED):
            pass
        if world.waiting:
            world.seen = len(world.history) - 1
            self.read_all()
            self.read_all_cached()
        while world.waiting:
            world.retry(next(iter(world.waiting)))
        self.read_all()
        for sent in self.to_settle():
            self.settle_one(sent)
        for which in range(3):
            self.say_what_is_out_of_date(which)
        self.read_all()
        self.read_all_cached()
        world.seen = len(world.history) - 1
        self.read_all()
        self.read_all_cached()
        for sent in self.to_sweep():
            self.sweep_one(sent)
        self.read_all()
        assert [s for s in world.sent if s.held and s.offset is not None] == []

    def change_blindly(self) -> None:
        """With the database away, what is long saved is changed: nothing of it is known then."""
        self.world.available = False
        for author in AUTHORS:
            for which, ref in enumerate(self.visible(author, "post", own=True)[:3]):
                planner = Planner(CATALOG, author)
                if which < 2:
                    planner.delete(POST, ref[1], None)
                else:
                    planner.change(POST, ref[1], {"body": "blindly"}, None)
                assert self.submit(planner, "ok")
        self.read_all_cached()
        self.read_all(limit=3)

    def read_all_cached(self) -> None:
        self.world.available = False
        self.read_all(limit=4)
        self.world.available = True

    def read_all(self, limit: int = 2) -> None:
        for author in AUTHORS:
            for ref in self.known():
                self.check_row(author.id, ref)
            for lst, parent in self.lists():
                self.walk(author.id, lst, parent, limit)
