"""A trial from its first process to its verdict."""

import asyncio
import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import asyncpg

from schema.identifiers import user_id_for
from tests.installation import Installation, eventually_async
from tests.replica import Replica
from tests.trials.author import Author, Mine
from tests.trials.checker import Verdict, Violation, judge
from tests.trials.faults import WEIGHTS, WRITERS, Fault, Faults
from tests.trials.model import Change, Mut, Record, marker
from tests.trials.web import Web, user_name

HOST, MODERATOR = 0, 999
APIS: Final = ("api-1", "api-2")
_DRAIN_S: Final = 180.0
_LOST: Final = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)


@dataclass(frozen=True)
class Plan:
    """What a trial is to be. `seconds` bounds the time in which changes are made."""

    authors: int = 100
    changes: int = 100
    seed: int = 1
    seconds: float = 900.0
    think_s: float = 0.3
    gap_s: float = 1.0
    faults: Mapping[Fault, int] = field(default_factory=lambda: dict(WEIGHTS))
    rejections: bool = True
    planted: str = ""
    """A bug that the API processes are started with; see `tests.trials.planted`."""
    most_violations: int = 20


@dataclass
class Result:
    """What came out. `audit` is empty when `afterwrite audit` was content."""

    plan: Plan
    record: Record
    verdict: Verdict
    statuses: dict[str, int]
    refusals: dict[str, int]
    unexpected: list[str]
    audit: str
    doubled_rows: int
    seconds: float

    @property
    def passed(self) -> bool:
        return not (self.verdict.violations or self.unexpected or self.audit or self.doubled_rows)

    def figures(self) -> dict[str, Any]:
        changes = self.record.changes
        return {
            "passed": self.passed,
            "seed": self.plan.seed,
            "authors": self.plan.authors,
            "changes": len(changes),
            "accepted": sum(c.accepted is not None for c in changes),
            "saved": sum(c.outcome == "saved" for c in changes),
            "rejected": sum(c.outcome == "rejected" for c in changes),
            "refused": self.refusals,
            "display_delayed": sum(c.display_delayed for c in changes),
            "answered_with_other_ids": sum(
                c.effective not in ("", c.command) for c in changes if c.command
            ),
            "reads": len(self.record.reads),
            "reads_by_state": dict(self.verdict.reads),
            "reads_by_kind": dict(self.verdict.kinds),
            "answers": self.statuses,
            "reads_beside_repeats": self.verdict.beside_repeats,
            "violations": self.verdict.by_kind(),
            "examples": [str(v) for v in self.verdict.violations[: self.plan.most_violations]],
            "unexpected_answers": self.unexpected[:10],
            "audit": self.audit,
            "doubled_rows": self.doubled_rows,
            "faults": self.record.faults,
            "fault_seconds": {k: round(v, 1) for k, v in self.record.seconds.items()},
            "seconds": round(self.seconds, 1),
        }


class Campaign:
    """Everything that one trial has started. The installation and the replica are its caller's."""

    def __init__(self, plan: Plan, installation: Installation, replica: Replica) -> None:
        self.plan = plan
        self.installation = installation
        self.replica = replica
        self.record = Record()
        self.web = Web(self.record, {}, installation.token)
        self.authors: list[Author] = []
        self.shared: list[Mine] = []
        self.known: list[Mine] = []
        self.stop = asyncio.Event()

    async def run(self) -> Result:
        """Start, let them work under faults, heal, drain, read all once more, judge."""
        begun = time.monotonic()
        await self._start()
        try:
            await self._open_shared_topics()
            faults = Faults(
                self.installation, self.replica, self.record, self.plan.seed, self.plan.faults
            )
            faults.keep_file()
            await self._work(faults)
            await self._drain()
            await self._learn()
            await self._read_all()
            audit = await self._audit()
            doubled = await self._doubled()
        finally:
            await self.web.close()
        await self._learn()
        refusals: dict[str, int] = {}
        for change in self.record.changes:
            if change.refusal:
                refusals[change.refusal] = refusals.get(change.refusal, 0) + 1
        return Result(
            self.plan,
            self.record,
            self._judge(),
            dict(self.web.statuses),
            refusals,
            self.web.unexpected,
            audit,
            doubled,
            time.monotonic() - begun,
        )

    # -- the processes ----------------------------------------------------------------------

    async def _start(self) -> None:
        url = self.replica.url_like(self.installation.frontend_url)
        self.installation.extra |= {
            "AFTERWRITE_FRONTEND_DATABASE_URL": url,
            "AFTERWRITE_WRITES_PER_MINUTE": "1000000",
        }
        for name in WRITERS:
            self.installation.start("writer", name)
        launcher = f"tests.trials.planted {self.plan.planted}" if self.plan.planted else ""
        for name in APIS:
            self.installation.start("api", name, launcher=launcher)
        for name in (*APIS, *WRITERS):
            await self.installation.processes[name].ready()
        urls = {name: self.installation.processes[name].url for name in APIS}
        self.web = Web(self.record, urls, self.installation.token)
        self.web.introduce(HOST)
        self.web.introduce(MODERATOR, "moderator")
        for number in range(1, self.plan.authors + 1):
            self.web.introduce(number)

    async def _open_shared_topics(self) -> None:
        """One topic for about eight authors, saved and replayed before they begin."""
        host = Author(HOST, self.plan.seed, self.web, [], self.known)
        self.authors.append(host)
        for number in range(1, max(2, self.plan.authors // 8) + 1):
            await host.open_one(number)
        self.shared = [*host.topics, *host.posts]
        self.record.shared |= {topic.row for topic in host.topics}
        await self._drain()
        await self.replica.caught_up()

    # -- the work ---------------------------------------------------------------------------

    async def _work(self, faults: Faults) -> None:
        done = asyncio.Event()
        for number in range(1, self.plan.authors + 1):
            mine = self._some_shared(number)
            self.authors.append(Author(number, self.plan.seed, self.web, mine, self.known))
        side = [
            asyncio.create_task(self._watch_replica(done)),
            asyncio.create_task(faults.go_on(done, self.plan.gap_s)),
            *(asyncio.create_task(author.read_along(done)) for author in self.authors[1:]),
        ]
        if self.plan.rejections:
            side.append(asyncio.create_task(self._moderate(done)))
        for task in side:
            task.add_done_callback(self._end_with)
        working = [
            asyncio.create_task(author.work(self.plan.changes, self.stop, self.plan.think_s))
            for author in self.authors[1:]
        ]
        try:
            _, late = await asyncio.wait(working, timeout=self.plan.seconds)
            if late:
                self.stop.set()
            await asyncio.gather(*working)
        finally:
            done.set()
            for task in working:
                task.cancel()
            outcomes = await asyncio.gather(*side, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    def _end_with(self, task: asyncio.Task[None]) -> None:
        """A side task that broke ends the work: what it would have shown is missing."""
        if not task.cancelled() and task.exception() is not None:
            self.stop.set()

    def _some_shared(self, number: int) -> list[Mine]:
        """The two shared topics of an author, with their first posts."""
        topics = [row for row in self.shared if row.type == "topic"]
        chosen = {topics[number % len(topics)].row, topics[(number * 3 + 1) % len(topics)].row}
        return [
            row
            for row in self.shared
            if row.row in chosen or (row.topic is not None and row.topic.row in chosen)
        ]

    async def _watch_replica(self, done: asyncio.Event) -> None:
        """Note what the replica shows for certain, again and again."""
        url = self.replica.url_like(self.installation.owner_url)
        connection: asyncpg.Connection | None = None
        while not done.is_set():
            resets = len(self.record.horizon.resets)
            try:
                async with asyncio.timeout(1):
                    if connection is None:
                        connection = await asyncpg.connect(url)
                    seq = await connection.fetchval("SELECT max(seq) FROM afterwrite.ledger")
                if resets == len(self.record.horizon.resets):
                    self.record.horizon.note(time.time(), seq or 0)
            except _LOST:
                if connection is not None:
                    connection.terminate()
                connection = None
            await asyncio.sleep(0.1)
        if connection is not None:
            connection.terminate()

    async def _moderate(self, done: asyncio.Event) -> None:
        """Lock shared topics, and ban authors, when a good part of the work is done."""
        total = self.plan.authors * self.plan.changes
        topics = [row for row in self.shared if row.type == "topic"]
        victims = [a.number for a in self.authors[1:] if a.number % 20 == 7] or [1]
        deeds: list[tuple[float, Mine | int]] = [
            (0.25 + 0.6 * n / len(topics), topic) for n, topic in enumerate(topics[1:])
        ]
        deeds += [(0.5 + 0.4 * n / len(victims), victim) for n, victim in enumerate(victims)]
        deeds.sort(key=lambda deed: deed[0])
        for number, (share, deed) in enumerate(deeds, 1):
            while len(self.record.changes) < share * total:
                if done.is_set() or self.stop.is_set():
                    return
                await asyncio.sleep(0.05)
            await self._condemn(number, deed)

    async def _condemn(self, number: int, deed: "Mine | int") -> None:
        if isinstance(deed, Mine):
            path, body, row = f"/v1/topics/{deed.id}", {"locked": True}, deed.row
            muts: tuple[Mut, ...] = (Mut("update", "topic", row),)
        else:
            user = user_id_for(user_name(deed))
            path, body, row, muts = f"/v1/users/{user}", {"banned": True}, "", ()
        change = Change(MODERATOR, number, row, muts, sent=time.time())
        self.record.changes.append(change)
        while change.accepted is None and change.refused is None:
            answer = await self.web.ask(
                MODERATOR, "PATCH", path, body, Idempotency_Key=change.key, If_Match="*"
            )
            if answer.status == 202:
                change.command, change.accepted = answer.body["command"], answer.ended
            elif answer.status not in (0, 409, 503):
                change.refused, change.refusal = answer.ended, answer.code
            else:
                await asyncio.sleep(0.3)

    # -- the end ----------------------------------------------------------------------------

    async def _drain(self) -> None:
        """Wait until everything is decided and settled, and the replica shows it."""
        commands = [uuid.UUID(c.command) for c in self.record.changes if c.command]

        async def settled() -> bool:
            try:
                decided = await self.installation.value(
                    "SELECT count(DISTINCT command_id) FROM afterwrite.ledger "
                    "WHERE command_id = ANY($1) AND outcome IN ('saved', 'rejected', 'duplicate')",
                    commands,
                )
                open_ = await self.installation.value(
                    "SELECT sum(outcome_seq - settled_seq) FROM afterwrite.lane"
                )
            except _LOST:
                return False
            return bool(decided == len(set(commands)) and open_ == 0)

        await eventually_async(settled, _DRAIN_S, f"{len(commands)} commands to be settled")
        await self.replica.release()
        await self.replica.caught_up()
        seq = await self.installation.value("SELECT max(seq) FROM afterwrite.ledger")
        self.record.horizon.note(time.time(), seq or 0)

    async def _learn(self) -> None:
        """What the ledger says of every change, also of those whose author was never answered."""
        keys = await self.installation.fetch(
            "SELECT author_id, key, command_id FROM afterwrite.idempotency_key"
        )
        effective = {(r["author_id"], r["key"]): r["command_id"] for r in keys}
        rows = await self.installation.fetch(
            "SELECT command_id, outcome, seq, decided_at FROM afterwrite.ledger "
            "WHERE outcome IN ('saved', 'rejected')"
        )
        ledger = {r["command_id"]: r for r in rows}
        for change in self.record.changes:
            told = uuid.UUID(change.command) if change.command else None
            command = effective.get((user_id_for(user_name(change.author)), change.key), told)
            found = ledger.get(command)
            if found is not None:
                change.effective = str(command)
                change.outcome = found["outcome"]
                change.seq = found["seq"]
                change.decided = found["decided_at"].timestamp()

    async def _read_all(self) -> None:
        """Every author looks at all that is his; somebody else at some of it."""
        for author in self.authors[1:]:
            for change in author.changes:
                if change.outcome == "rejected" and change.command:
                    await author.ask_about(change)
            for topic in author.topics:
                await self.web.row(author.number, "topic", topic.row, topic.id)
                await self.web.walk(author.number, "posts", topic.row, topic.id, 7)
            for post in author.posts[-10:]:
                await self.web.row(author.number, "post", post.row, post.id)
            await self._notices_of(author.number)
        for topic in [row for row in self.shared if row.type == "topic"]:
            await self.web.walk(1, "posts", topic.row, topic.id, 100)
            await self.web.walk(HOST, "posts", topic.row, topic.id, 100)
        await self.web.walk(1, "topics", "", "", 20)

    async def _notices_of(self, author: int) -> None:
        async def whole() -> bool:
            return not (await self.web.notices(author)).declared

        await eventually_async(whole, 20, f"the notices of author {author} to be whole")

    async def _audit(self) -> str:
        async def at_the_end() -> bool:
            status = await asyncio.to_thread(self.installation.run, "status", "--json")
            return status.returncode == 0 and json.loads(status.stdout)["pending"] == 0

        await eventually_async(at_the_end, 60, "the writer to come to the end of the log")
        audit = await asyncio.to_thread(self.installation.run, "audit")
        return "" if audit.returncode == 0 else audit.stdout + audit.stderr

    async def _doubled(self) -> int:
        """How many texts are in the database more than once."""
        found: int = await self.installation.value(
            "SELECT count(*) - count(DISTINCT body) FROM (SELECT body FROM post "
            "UNION ALL SELECT title FROM topic) AS texts"
        )
        return found

    def _judge(self) -> Verdict:
        verdict = judge(self.record)
        return replace(verdict, violations=[*verdict.violations, *self._unnoticed()])

    def _unnoticed(self) -> Sequence[Violation]:
        """Rejections whose author has no notice at the end."""
        last = {read.reader: read for read in self.record.reads if read.kind == "notices"}
        found = []
        for change in self.record.changes:
            read = last.get(change.author)
            if change.outcome != "rejected" or read is None or read.status != 200:
                continue
            if change.effective not in {seen.command for seen in read.rows}:
                found.append(Violation("missing", f"the notice of {change.key}", read))
        return found


__all__ = ["Campaign", "Plan", "Result", "marker"]
