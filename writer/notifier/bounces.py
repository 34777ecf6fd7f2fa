"""What the outcomes bring: rejections, summed up for administrators and sent back by mail to those who
want it; and who has changed how he wants to be told.

The text comes from the dead letter, so this waits while PostgreSQL is away; nothing is rejected then.
"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from schema import mail_templates, texts
from schema.catalog import Catalog
from schema.commands import Command
from schema.fields import render_time
from writer.notifier.memory import Memory
from writer.notifier.observing import DatabaseWatch
from writer.notifier.outcomes import OutcomeFollower, Rejected, counted
from writer.notifier.preferences import Preferences
from writer.notifier.telling import Records, Teller

_AT_ONCE: Final = 50
"""Dead letters that are read at once; each may have half a megabyte."""
_WRITE_EVERY_S: Final = 3.0
_MAX_TEXT: Final = 100_000


@dataclass
class Bounces:
    """Works on what the follower of the outcomes found."""

    memory: Memory
    follower: OutcomeFollower
    database: DatabaseWatch
    teller: Teller
    preferences: Preferences
    catalog: Catalog
    _generation: int = -1
    _written_at: float = 0.0

    def recall(self) -> None:
        """Go on where the last one stopped, if this notifier has just taken the lead."""
        if self._generation != self.memory.generation:
            self._generation = self.memory.generation
            self.follower.go_on(self.memory.recall("offsets"))

    async def new(self, now: datetime) -> Records:
        """The records of what was rejected, with how far the outcomes are read."""
        batch = self.follower.new()
        rejected = batch.rejected
        if (rejected or batch.preferring) and not self.database.answers:
            return {}
        if batch.preferring:  # before anything is sent that depends on it
            records = await self.preferences.changed(batch.preferring)
            self.follower.preferred(batch.preferring)
            return records
        if batch.next and (unread := await self.preferences.unread()):
            return unread  # what changes from here on, the outcomes tell
        loop = asyncio.get_running_loop()
        due = loop.time() - self._written_at >= _WRITE_EVERY_S
        offsets = batch.to_json()
        if not rejected and (not due or offsets == self.memory.recall("offsets")):
            return {}
        records = Records()
        if rejected:
            records |= self._counted(rejected, now)
            records |= await self._mails(rejected, now)
        self.follower.done(batch)
        self._written_at = loop.time()
        return records | {"offsets": offsets}

    def _counted(self, rejected: Sequence[Rejected], now: datetime) -> Records:
        known = self.memory.recall("rejections") or {"since": render_time(now), "codes": {}}
        seen = self.database.seen
        open_ = seen.open_letters if seen is not None else None
        return {"rejections": known | {"codes": counted(known["codes"], rejected), "open": open_}}

    async def _mails(self, rejected: Sequence[Rejected], now: datetime) -> Records:
        """One mail for each notice that was made."""
        records: Records = {}
        noticed = [one for one in rejected if one.notice is not None]
        for at in range(0, len(noticed), _AT_ONCE):
            some = noticed[at : at + _AT_ONCE]
            values = await self.database.values_of_letters([one.place for one in some])
            for one in some:
                command = _command(values.get(one.place))
                if command is not None and one.notice is not None:
                    records |= self._mail(one, command, now, records)
        return records

    def _mail(self, one: Rejected, command: Command, now: datetime, before: Records) -> Records:
        assert one.notice is not None
        locale = self.teller.locale(command.author)
        parameters = mail_templates.Rejected(
            name=command.author.name[:200],
            reason=texts.rejected(locale, one.code, one.detail)[:4000],
            code=one.code,
            text=text_of(self.catalog, command),
            link=f"{self.teller.policy.link}/{one.notice}/resend",
        )
        return self.teller.mail(command.author, one.notice, parameters, now, before)


def text_of(catalog: Catalog, command: Command) -> str | None:
    """What its author wrote, as it was; None if nothing."""
    written = [
        value
        for m in command.mutations
        if m.type in catalog
        for name, value in m.values.items()
        if isinstance(value, str)
        and (field := catalog[m.type].fields.get(name)) is not None
        and field.kind == "text"
    ]
    return "\n\n".join(written)[:_MAX_TEXT] or None


def _command(value: bytes | None) -> Command | None:
    if value is None:
        return None
    try:
        data: Any = json.loads(value)
        return Command.from_json(data)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
