"""Whom to tell what, once: delayed, and saved after all. Pure: no clock, no I/O.

What is decided here comes out as records for the memory. Everything that is to be done follows from
those records alone, so that whoever is killed between remembering and doing finds it again.

    told:LANE:USER      he was told that his changes are delayed, and not yet what became of them
    notice:COMMAND      a notice that is to be published, as the command that makes it
    mail:MAIL           a mail that is to be queued
    mailed:USER:DATE    how much mail he had that day
    preference:USER     whether he wants mail, and in which language
"""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from schema import texts
from schema.catalog import Catalog
from schema.commands import Author, Command, Mutation
from schema.fields import parse_time, render_time
from schema.identifiers import CommandId, RowId, UserId, derived_id
from schema.mail import Mail
from schema.mail_templates import Delayed, Parameters, SavedAfterAll, queue
from writer.notifier.bounds import Mailed
from writer.notifier.waiting import Item

Records = dict[str, Any]
"""Memory keys and their JSON values. None: to be forgotten."""

_MAX_NAME: Final = 200


@dataclass(frozen=True)
class Delay:
    """What one author waits for in one lane: in the log, parked, or both."""

    lane: int
    author: Author
    count: int
    oldest: datetime
    first: int
    last: int
    first_id: uuid.UUID
    items: tuple[Item, ...] = ()

    def and_(self, other: "Delay") -> "Delay":
        """Both together; `self` is what is parked, which was accepted before."""
        return replace(
            self,
            author=other.author,
            count=self.count + other.count,
            oldest=min(self.oldest, other.oldest),
            first=min(self.first, other.first),
            last=max(self.last, other.last),
            items=(*self.items, *other.items)[:20],
        )


@dataclass(frozen=True)
class Told:
    """An author who was told that what he did in a lane is delayed.

    `through` is the last offset that belongs to it: when all of his up to there is decided, it is over.
    """

    lane: int
    author: Author
    notice: uuid.UUID
    first_id: uuid.UUID
    first: int
    through: int
    at: datetime

    @property
    def key(self) -> str:
        return told_key(self.lane, self.author.id)

    def to_json(self) -> dict[str, Any]:
        return {
            "lane": self.lane,
            "author": self.author.to_json(),
            "notice": str(self.notice),
            "first_id": str(self.first_id),
            "first": self.first,
            "through": self.through,
            "at": render_time(self.at),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Told":
        return cls(
            lane=data["lane"],
            author=Author.from_json(data["author"]),
            notice=uuid.UUID(data["notice"]),
            first_id=uuid.UUID(data["first_id"]),
            first=data["first"],
            through=data["through"],
            at=parse_time(data["at"]),
        )


@dataclass(frozen=True)
class Decided:
    """What the ledger says of a range of one author's commands."""

    saved: int
    rejected: int
    open: int
    """Parked: not decided yet."""


@dataclass(frozen=True)
class Policy:
    """What the settings say about telling users. Durations are `timedelta`s."""

    delay_after: timedelta
    horizon: timedelta
    mails_per_user_day: int
    link: str


def told_key(lane: int, user: uuid.UUID) -> str:
    return f"told:{lane}:{user}"


@dataclass(frozen=True)
class Teller:
    """Makes records. `recall` asks the memory, `new_id` makes ids."""

    catalog: Catalog
    policy: Policy
    recall: Callable[[str], Any]
    new_id: Callable[[], uuid.UUID]

    def delayed(self, delay: Delay, now: datetime, before: Records) -> Records:
        """The author is told that his changes wait. Nothing if he has been told.

        `before`: what was decided in this round and is not remembered yet, here as everywhere.
        """
        key = told_key(delay.lane, delay.author.id)
        if self.recall(key) is not None or delay.oldest > now - self.policy.delay_after:
            return {}
        until = delay.oldest + self.policy.horizon
        author, locale = delay.author, self.locale(delay.author)
        detail = texts.delayed(locale, delay.count, until, now)
        returned = {
            "count": delay.count,
            "since": render_time(delay.oldest),
            "until": render_time(until),
            "waiting": [{"command": str(i.command), "text": i.text} for i in delay.items],
        }
        command = self._command("delayed", author, delay.first_id, detail, returned, now)
        notice = command.mutations[0].id
        told = Told(
            lane=delay.lane,
            author=replace(author, roles=()),
            notice=notice,
            first_id=delay.first_id,
            first=delay.first,
            through=delay.last,
            at=now,
        )
        parameters = Delayed(
            name=author.name[:_MAX_NAME],
            count=delay.count,
            since=delay.oldest,
            until=until,
            items=tuple(item.text for item in delay.items),
            link=self.policy.link,
        )
        records = {key: told.to_json(), **owed(command)}
        return records | self.mail(author, notice, parameters, now, before)

    def through(self, delay: Delay) -> Records:
        """What he has done since he was told belongs to it, too."""
        remembered = self.recall(told_key(delay.lane, delay.author.id))
        if remembered is None or remembered["through"] >= delay.last:
            return {}
        return {told_key(delay.lane, delay.author.id): {**remembered, "through": delay.last}}

    def over(self, told: Told, decided: Decided, now: datetime, before: Records) -> Records:
        """All that waited is decided: the author is told what is saved. Nothing while some is open."""
        if decided.open or self.recall(told.key) is None:
            return {}
        records: Records = {told.key: None}
        if not decided.saved:
            return records  # each rejection has its own notice
        author, locale = told.author, self.locale(told.author)
        detail = texts.saved_after_all(locale, decided.saved, decided.rejected)
        returned = {"saved": decided.saved, "rejected": decided.rejected}
        command = self._command("saved_after_all", author, told.first_id, detail, returned, now)
        parameters = SavedAfterAll(
            name=author.name[:_MAX_NAME], count=decided.saved, link=self.policy.link
        )
        records |= owed(command)
        return records | self.mail(author, command.mutations[0].id, parameters, now, before)

    def mail(
        self,
        author: Author,
        notice: uuid.UUID,
        parameters: Parameters,
        now: datetime,
        before: Records,
    ) -> Records:
        """The mail about a notice, if he has an address, wants it, and has not had too many."""
        wanted = self.recall(f"preference:{author.id}") or {}
        if author.email is None or not wanted.get("mail", True):
            return {}
        today = now.astimezone(UTC).date()
        locale = self.locale(author)
        fresh = Mailed(author.id, today, author.email, author.name[:_MAX_NAME], locale, now)
        known = before.get(fresh.key) or self.recall(fresh.key)
        mailed, may = (Mailed.from_json(known) if known else fresh).with_one(
            parameters.template, self.policy.mails_per_user_day
        )
        records: Records = {mailed.key: mailed.to_json()}
        if may:
            mail = queue(
                parameters,
                mail_id=derived_id("mail", parameters.template, str(notice)),
                to=author.email,
                locale=locale,
                created_at=now,
                user=author.id,
            )
            records |= queued(mail)
        return records

    def day_over(self, mailed: Mailed, now: datetime) -> Records:
        """A day of mail is over: what was held back comes as one digest."""
        if not mailed.over(now):
            return {}
        digest = mailed.digest(self.policy.link, now)
        return {mailed.key: None, **(queued(digest) if digest is not None else {})}

    def locale(self, author: Author) -> str:
        """The language in which he is told."""
        wanted = self.recall(f"preference:{author.id}") or {}
        return wanted.get("locale") or author.locale or "en"

    def _command(
        self,
        kind: str,
        author: Author,
        about: uuid.UUID,
        detail: str,
        returned: Mapping[str, Any],
        now: datetime,
    ) -> Command:
        """The command that makes a notice, in the stream of the user whom it tells."""
        values = {
            "user_id": str(author.id),
            "kind": kind,
            "command_id": str(about),
            "code": kind,
            "detail": detail,
            "returned": dict(returned),
        }
        notice = RowId(self.new_id())
        return Command(
            command_id=CommandId(self.new_id()),
            stream=RowId(author.id),
            author=Author(UserId(author.id), author.name),
            accepted_at=now,
            mutations=(Mutation("create", self.catalog.notice.name, notice, values),),
            system=True,
        )


def owed(command: Command) -> Records:
    """A notice that is to be published."""
    return {f"notice:{command.command_id}": {"command": command.to_json(), "place": None}}


def queued(mail: Mail) -> Records:
    """A mail that is to be queued."""
    return {f"mail:{mail.mail_id}": mail.to_json()}
