"""Sends a dump: questions, until they are settled; then answers, until they are.

An answer waits until its question is settled, and not only accepted: if the dump was sent before
and nobody remembers, neither we nor Redis, the question's 202 names a new topic. Only the settled
command tells the id of the first one, in which the answers belong.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from deploy.errors import Trouble
from deploy.load.api import Api, Refused
from deploy.load.concurrency import concurrently
from deploy.load.progress import Showing
from deploy.load.report import Listed, Report
from deploy.load.stackexchange import Answer, Question, Survey, read
from deploy.load.state import Entry, LoadState

T = TypeVar("T")
_PENDING_IN_A_ROW = 64


@dataclass(frozen=True)
class Limits:
    """How hard to push and how long to wait."""

    in_flight: int = 16
    """Requests at the same time."""
    settle_within_s: float = 1200.0
    """Longest wait in which no command at all settles. Longer than the writer's dependency wait."""
    polls_per_s: float = 200.0
    """Most questions a second after the state of commands."""


@dataclass
class Loader:
    """One run over one dump."""

    path: Path
    survey: Survey
    api: Api
    state: LoadState
    showing: Showing
    limits: Limits = field(default_factory=Limits)
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    _report: Report = field(default_factory=Report)
    _refused: dict[str, str] = field(default_factory=dict)
    _next_poll: float = 0.0

    async def load(self) -> Report:
        """Sends what was not sent before and waits until all is settled.

        Raises `NotReachable` when the API stays silent; what was accepted is in the state file.
        """
        began = self.clock()
        self._report.rows = self.survey.rows
        self._report.earlier = len(self.state.entries)
        for row in self.survey.untakeable:
            self._report.skipped.append(Listed(row.row, row.reason))
            self._report.not_posts += not row.is_post
        await self._same_site()
        await self._send("questions", len(self.survey.questions), Question, self._question)
        await self._settle()
        await self._send("answers", self.survey.answers, Answer, self._answer)
        await self._settle()
        self._account()
        self._report.seconds = self.clock() - began
        return self._report

    async def _same_site(self) -> None:
        """Asks the API for a command that the state file calls saved: it must know it."""
        known = next((e for e in self.state.entries.values() if e.state == "saved"), None)
        if known is None:
            return
        try:
            await self.api.get(f"/v1/commands/{known.command}", known.author)
        except Refused as refused:
            if refused.status != 404:
                raise Trouble(f"The API refuses to be asked: {refused}.", "See its log.") from None
            raise Trouble(
                f"{self.state.path} is not about this site: it does not know command "
                f"{known.command} of row {known.row}.",
                "Name another file with --state.",
            ) from None

    # -- sending -----------------------------------------------------------------------------

    async def _send(
        self, name: str, total: int, kind: type[T], send: Callable[[T], Awaitable[None]]
    ) -> None:
        self.showing.stage(f"sending {name}", total)

        async def one(row: T) -> None:
            await send(row)
            self.showing.advance()

        rows = (row for row in read(self.path) if isinstance(row, kind))
        await concurrently(rows, one, self.limits.in_flight)

    async def _question(self, row: Question) -> None:
        if row.row in self.state.entries:
            return
        body = {"title": row.title, "body": row.body}
        accepted = await self._submit("/v1/topics", row.row, row.author, body)
        if accepted is not None:
            await self._keep(row.row, row.author, accepted, topic=str(accepted["id"]))

    async def _answer(self, row: Answer) -> None:
        if row.row in self.state.entries:
            return
        parent = self.state.entries.get(row.parent)
        if parent is None or parent.state != "saved" or parent.topic is None:
            self._without_question(row, parent)
            return
        path = f"/v1/topics/{parent.topic}/posts"
        accepted = await self._submit(path, row.row, row.author, {"body": row.body})
        if accepted is not None:
            await self._keep(
                row.row, row.author, accepted, topic=parent.topic, post=str(accepted["id"])
            )

    def _without_question(self, row: Answer, parent: Entry | None) -> None:
        """Lists an answer that cannot be sent, since its topic is not there."""
        if parent is not None and parent.state == "accepted":
            reason = f"its question, row {row.parent}, is not settled yet"
            self._report.unsettled.append(Listed(row.row, reason))
            return
        if row.parent not in self.survey.questions:
            reason = f"its question, row {row.parent}, is not in the dump, or cannot be taken"
        else:
            reason = f"its question, row {row.parent}, was rejected"
        self._report.skipped.append(Listed(row.row, reason))

    async def _submit(self, path: str, row: str, author: str, body: dict[str, str]) -> Any | None:
        key = f"stackexchange-{self.survey.digest[:16]}-{row}"
        try:
            return await self.api.post(path, author, key, body)
        except Refused as refused:
            self._refused[row] = str(refused)
            return None

    async def _keep(
        self, row: str, author: str, accepted: Any, *, topic: str, post: str | None = None
    ) -> None:
        self._report.accepted += 1
        await self.state.put(Entry(row, author, str(accepted["command"]), topic, post))

    # -- settling ----------------------------------------------------------------------------

    async def _settle(self) -> None:
        """Asks for the state of each accepted command until all are settled, or none settles any
        more. Commands settle about in the order in which they were accepted, so a round ends when
        many in a row are pending; those asked go to the end of the queue."""
        waiting = [e for e in self.state.entries.values() if e.state == "accepted"]
        self.showing.stage("waiting until saved", len(waiting))
        moved_at, pause_s = self.clock(), 0.1
        while waiting:
            pending = await self._round(waiting)
            settled = sum(self.state.entries[e.row].state != "accepted" for e in waiting)
            asked = {entry.row for entry in pending}
            left = [e for e in waiting if self.state.entries[e.row].state == "accepted"]
            waiting = [e for e in left if e.row not in asked] + pending
            if settled:
                moved_at, pause_s = self.clock(), 0.1
            elif self.clock() - moved_at > self.limits.settle_within_s:
                return
            if waiting:
                await self.sleep(pause_s)
                pause_s = min(2.0, pause_s * 2)

    async def _round(self, waiting: list[Entry]) -> list[Entry]:
        """Asks in order; returns those that were asked and are pending."""
        pending: list[Entry] = []
        in_a_row = 0

        def candidates() -> Iterator[Entry]:
            for entry in waiting:
                if in_a_row >= _PENDING_IN_A_ROW:
                    return
                yield entry

        async def one(entry: Entry) -> None:
            nonlocal in_a_row
            if await self._look(entry):
                in_a_row = 0
                self.showing.advance()
            else:
                in_a_row += 1
                pending.append(entry)

        await concurrently(candidates(), one, self.limits.in_flight)
        return pending

    async def _look(self, entry: Entry) -> bool:
        """Whether the command of an entry is settled; if so, the state file knows it now."""
        await self._pace()
        try:
            found = await self.api.get(f"/v1/commands/{entry.command}", entry.author)
        except Refused as refused:
            if refused.status == 404:
                return False  # for a moment nobody may know it, as when Redis has lost its memory
            raise Trouble(f"The API refuses to be asked: {refused}.", "See its log.") from refused
        if found["state"] not in ("saved", "rejected"):
            return False
        await self.state.put(_settled(entry, found))
        return True

    async def _pace(self) -> None:
        now = self.clock()
        self._next_poll = max(now, self._next_poll) + 1 / self.limits.polls_per_s
        if self._next_poll - now > 1 / self.limits.polls_per_s:
            await self.sleep(self._next_poll - now)

    # -- the end -----------------------------------------------------------------------------

    def _account(self) -> None:
        report = self._report
        report.rejected += [Listed(row, reason) for row, reason in self._refused.items()]
        for entry in self.state.entries.values():
            if entry.state == "saved":
                report.saved += 1
            elif entry.state == "rejected":
                report.rejected.append(Listed(entry.row, entry.reason or "rejected"))
            else:
                report.unsettled.append(Listed(entry.row, f"command {entry.command} is pending"))


def _settled(entry: Entry, found: Any) -> Entry:
    """The entry with its end, and with the ids of the rows that are there: those of the first
    command, if ours was a duplicate of it."""
    if found["state"] == "rejected":
        problem = found.get("problem") or {}
        reason = f"{problem.get('code', 'rejected')}: {problem.get('detail', '')}"
        return replace(entry, state="rejected", reason=reason)
    made = {
        row["type"]: row["id"]
        for row in found.get("rows", [])
        if row.get("op", "create") == "create"
    }
    topic, post = made.get("topic", entry.topic), made.get("post", entry.post)
    return replace(entry, state="saved", topic=topic, post=post)
