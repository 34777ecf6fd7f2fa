"""What becomes of one mail: sent, put off, or dead. The one place that decides it."""

import asyncio
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Protocol

from schema.clock import Clock
from schema.failpoints import reach
from schema.mail import Mail, MailFailure
from schema.mail_templates import BadParameters, UnknownTemplate
from schema.strict_json import JsonError, decode
from schema.telemetry import Log
from schema.topics import Topics
from writer.failures import LogUnavailable
from writer.mail.addresses import BadAddress, checked
from writer.mail.breaker import Backoff, Breaker
from writer.mail.dead_letter import dead_letter
from writer.mail.message import Sender, Unsendable, compose
from writer.mail.metrics import Metrics
from writer.mail.rendering import Rendering, Unrenderable
from writer.mail.smtp import Ambiguous, Claim, PutOff, Refused, ServerAway
from writer.mail.state import AddressMark, MailState, Memory
from writer.mail.window import Waiting
from writer.publisher import Message

_AGAIN_S: Final = 1.0


def horizon_of(value: bytes | None, horizon_s: float) -> datetime | None:
    """Until when a mail is tried; `None` for bytes that are no mail."""
    try:
        return Mail.from_json(decode(value or b"")).created_at + timedelta(seconds=horizon_s)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return None


class NotOwner(Exception):
    """Another worker has taken the partition: this mail is its."""


class Server(Protocol):
    """Hands one message over; `writer.mail.smtp.Smtp`."""

    async def send(self, sender: str, to: str, message: bytes, claim: Claim) -> None: ...


class States(Protocol):
    """The state topic; `writer.mail.state_log.StateLog`."""

    memory: Memory

    async def note(self, partition: int, mail_id: uuid.UUID, state: MailState) -> int: ...

    async def mark(self, address: str, mark: AddressMark) -> None: ...

    async def reached(self, partition: int, offset: int) -> None: ...


class Letters(Protocol):
    """Publishes dead letters; `writer.publisher.OutcomePublisher`."""

    async def publish(self, messages: Iterable[Message]) -> list[int | None]: ...


@dataclass(frozen=True)
class Later:
    """It is tried again; the same mail with what is known of it now."""

    waiting: Waiting


@dataclass(frozen=True)
class Finished:
    """Nothing is to be done for it any more, and that is remembered."""


class _Dead(Exception):
    """This mail will not be sent. `detail` has no text of users."""

    def __init__(self, code: MailFailure, detail: str) -> None:
        super().__init__(detail)
        self.code: MailFailure = code
        self.detail = detail


@dataclass
class Sending:
    """Works on one mail at a time. Raises `NotOwner` and `LogUnavailable`."""

    worker: str
    topics: Topics
    sender: Sender
    public_url: str
    horizon_s: float
    backoff: Backoff
    rendering: Rendering
    server: Server
    breaker: Breaker
    states: States
    letters: Letters
    metrics: Metrics
    clock: Clock
    log: Log

    async def handle(self, waiting: Waiting) -> Finished | Later:
        """One mail, one attempt."""
        mail: Mail | None = None
        try:
            mail = _read(waiting)
            if self.states.memory.finished(mail.mail_id):
                self.metrics.mail.labels("duplicate").inc()
                return Finished()
            waiting = self._known(waiting, mail)
            if waiting.due > self.clock():
                return Later(waiting)
            return await self._attempt(waiting, mail)
        except _Dead as dead:
            return await self._bury(waiting, mail, dead)

    def _known(self, waiting: Waiting, mail: Mail) -> Waiting:
        """With what the state topic has about it: an attempt that was made by us or by others."""
        if waiting.known:
            return waiting
        state = self.states.memory.open(mail.mail_id)
        if state is None:
            return replace(waiting, known=True)
        return replace(
            waiting,
            known=True,
            attempts=state.attempts,
            due=state.next_at or waiting.due,
            maybe_sent=state.maybe_sent or state.state == "sending",
        )

    async def _attempt(self, waiting: Waiting, mail: Mail) -> Finished | Later:
        if waiting.horizon is not None and waiting.horizon <= self.clock():
            raise _Dead("expired", f"not sent within {self.horizon_s:g} s")
        address, message = self._made(mail)
        if not self.breaker.closed(self.clock()):
            return Later(replace(waiting, due=self.breaker.probe_at or waiting.due))
        try:
            await self.server.send(
                self.sender.address, address, message, lambda: self._claim(waiting, mail)
            )
        except ServerAway as error:
            return self._server_away(waiting, error)
        except PutOff as error:
            self._server_is(well=not error.server, error=error)
            return await self._put_off(waiting, mail, error, maybe_sent=waiting.maybe_sent)
        except Ambiguous as error:
            self._server_is(well=False, error=error)
            return await self._put_off(waiting, mail, error, maybe_sent=True)
        except Refused as error:
            self._server_is(well=True, error=error)
            await self._mark(mail, address, error)
            raise _Dead("refused", str(error)) from error
        reach("mail_after_data")
        self._server_is(well=True, error=None)
        return await self._sent(waiting, mail)

    def _made(self, mail: Mail) -> tuple[str, bytes]:
        """Where it goes and what it is; a mail that cannot be made is dead."""
        try:
            address = checked(mail.to)
        except BadAddress as error:
            raise _Dead("bad_address", str(error)) from error
        bounced = self.states.memory.addresses.get(address)
        if bounced is not None:
            raise _Dead(
                "address_bounced", f"it refused {bounced.mail_id}: {bounced.code} {bounced.reply}"
            )
        try:
            bare = replace(mail, to=address)
            return address, compose(bare, self.rendering.render(bare), self.sender, self.public_url)
        except UnknownTemplate as error:
            raise _Dead("unknown_template", str(error)) from error
        except BadParameters as error:
            raise _Dead("bad_parameters", str(error)) from error
        except (Unsendable, Unrenderable) as error:
            raise _Dead("unsendable", str(error)) from error

    async def _claim(self, waiting: Waiting, mail: Mail) -> None:
        """Say that it is being sent, and make sure that nobody else has taken the partition before."""
        partition = waiting.record.partition
        state = MailState(
            "sending",
            self.clock(),
            waiting.attempts,
            maybe_sent=waiting.maybe_sent,
            worker=self.worker,
        )
        offset = await self.states.note(partition, mail.mail_id, state)
        await self.states.reached(partition, offset)
        if self.states.memory.owners.get(partition) != self.worker:
            await self._put_right(partition, mail)
            raise NotOwner(partition)
        if waiting.maybe_sent:
            self.metrics.possible_duplicates.inc()
            self.log.warning("mail_possible_duplicate", mail_id=str(mail.mail_id))
        reach("mail_before_data")

    async def _put_right(self, partition: int, mail: Mail) -> None:
        """What we wrote stands behind what its owner wrote, and is what is left of both one day."""
        done = self.states.memory.state_of(mail.mail_id)
        if done == "sent" or done == "failed":
            await self.states.note(partition, mail.mail_id, MailState(done, self.clock()))

    async def _sent(self, waiting: Waiting, mail: Mail) -> Finished:
        """Remember it, however long that takes: forgotten, it would be sent twice."""
        while True:
            state = MailState("sent", self.clock(), waiting.attempts + 1)
            try:
                await self.states.note(waiting.record.partition, mail.mail_id, state)
                break
            except (LogUnavailable, TimeoutError) as error:
                self.log.warning(
                    "recovering", what="mail state", error=repr(error), wait_s=_AGAIN_S
                )
                await asyncio.sleep(_AGAIN_S)
        self.metrics.mail.labels("sent").inc()
        self.metrics.seconds.observe(max(0.0, (state.at - mail.created_at).total_seconds()))
        self.log.info("mail_sent", mail_id=str(mail.mail_id), template=mail.template)
        return Finished()

    async def _put_off(
        self, waiting: Waiting, mail: Mail, error: PutOff | Ambiguous, *, maybe_sent: bool
    ) -> Finished | Later:
        now, attempts = self.clock(), waiting.attempts + 1
        if waiting.horizon is not None and waiting.horizon <= now:
            raise _Dead("expired", f"put off {attempts} times, the last with: {error}")
        due = now + timedelta(seconds=self.backoff.wait_s(attempts))
        state = MailState(
            "deferred", now, attempts, due, maybe_sent, str(error.code or "broken off")
        )
        await self.states.note(waiting.record.partition, mail.mail_id, state)
        self.metrics.mail.labels("put_off").inc()
        self.log.info(
            "mail_put_off", mail_id=str(mail.mail_id), attempts=attempts, reply=str(error)
        )
        return Later(replace(waiting, due=due, attempts=attempts, maybe_sent=maybe_sent))

    def _server_away(self, waiting: Waiting, error: ServerAway) -> Later:
        """No attempt is burned: nothing was tried with this mail."""
        self._server_is(well=False, error=error)
        return Later(replace(waiting, due=self.breaker.probe_at or waiting.due))

    def _server_is(self, *, well: bool, error: Exception | None) -> None:
        if not well:
            wait_s = self.breaker.failed(self.clock())
            self.log.warning("smtp_unavailable", error=str(error), wait_s=round(wait_s, 3))
        elif self.breaker.worked():
            self.log.info("smtp_available")
        self.metrics.smtp_available.set(1 if well else 0)

    async def _mark(self, mail: Mail, address: str, error: Refused) -> None:
        mark = AddressMark(error.code or 0, error.reply, str(mail.mail_id), self.clock())
        await self.states.mark(address, mark)

    async def _bury(self, waiting: Waiting, mail: Mail | None, dead: _Dead) -> Finished:
        """The dead letter first, then the memory of it: after a crash between, there are two."""
        record, now = waiting.record, self.clock()
        attempts = waiting.attempts + (dead.code == "refused")
        await self.letters.publish(
            [
                dead_letter(
                    self.topics.mail_dead_letters.name,
                    self.topics.mail.name,
                    record,
                    dead.code,
                    dead.detail,
                    attempts,
                    now,
                )
            ]
        )
        if mail is not None:
            state = MailState("failed", now, attempts, code=dead.code)
            await self.states.note(record.partition, mail.mail_id, state)
        self.metrics.mail.labels("dead").inc()
        self.log.warning(
            "mail_dead",
            mail_id=str(mail.mail_id) if mail else None,
            partition=record.partition,
            offset=record.offset,
            code=dead.code,
            detail=dead.detail,
        )
        return Finished()


def _read(waiting: Waiting) -> Mail:
    try:
        return Mail.from_json(decode(waiting.record.value or b""))
    except JsonError as error:
        raise _Dead("unreadable", f"no JSON: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _Dead("unreadable", f"no mail: {type(error).__name__}") from error
