"""The accept path: claim, check, show, publish, confirm. The story of one command begins here."""

import asyncio
import contextlib
import functools
import random
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from frontend_api import confirming, trace
from frontend_api.confirming import Confirming, Sent
from frontend_api.early_check import Checked
from frontend_api.idempotency import Answer, Claimed, InFlight, KeyReused
from frontend_api.kafka_producer import NotAccepted, OutcomeUnknown, Published
from frontend_api.planning import Effect, Plan, scopes_of
from frontend_api.problems import ProblemError, fail
from frontend_api.redis_access import RedisUnavailable
from frontend_api.seen import View
from schema import clock
from schema.catalog import Catalog
from schema.commands import Command
from schema.envelope import Envelope, Keyring, Record, seal
from schema.failpoints import reach
from schema.identifiers import CommandId, RowId
from schema.redis_keys import RedisKeys
from schema.scopes import Scope
from schema.structs import struct
from schema.telemetry import Log
from schema.topics import lane_of

SOURCE: Final = "/afterwrite/api"
_CLAIM_TRIES: Final = 60
_CLAIM_PAUSE_S: Final = (0.2, 5.0)
_RESERVE_S: Final = 0.3
"""Kept of the deadline for what follows the publishing."""

_log = Log("frontend_api")


class ClaimPort(Protocol):
    async def claim(
        self, author: uuid.UUID, key: str, fingerprint: str, ids: Sequence[uuid.UUID]
    ) -> Claimed | Answer: ...

    async def answer(
        self, author: uuid.UUID, key: str, ids: Sequence[uuid.UUID], answer: Answer
    ) -> None: ...

    async def release(self, author: uuid.UUID, key: str, ids: Sequence[uuid.UUID]) -> None: ...

    async def reopen(self, author: uuid.UUID, key: str, ids: Sequence[uuid.UUID]) -> None: ...

    async def first(
        self, author: uuid.UUID, key: str, fingerprint: str, ids: Sequence[uuid.UUID]
    ) -> bool | None: ...


class CheckPort(Protocol):
    async def read(self, plan: Plan) -> View: ...

    async def check(
        self, plan: Plan, draft: Command, *, again: bool, view: View | None = None
    ) -> Checked: ...


class OverlayPort(confirming.OverlayPort, Protocol):
    async def put(self, command: Command, scopes: Sequence[Scope]) -> None: ...

    async def withdraw(self, command: Command) -> None: ...


class PublisherPort(Protocol):
    async def publish(
        self,
        record: Record,
        lane: int,
        timeout_s: float,
        on_late: Callable[[Published], None],
    ) -> Published: ...


@struct(frozen=True)
class Accepted:
    """A command that Kafka has confirmed. `shown` is False if the overlay could not be written."""

    command: Command
    effects: tuple[Effect, ...]
    shown: bool
    ids: tuple[uuid.UUID, ...]


@dataclass(frozen=True)
class Submissions:
    """Everything that `submit()` needs; built once, by the composition root."""

    catalog: Catalog
    keys: RedisKeys
    keyring: Keyring
    lanes: int
    deadline_s: float
    claims: ClaimPort
    checker: CheckPort
    overlay: OverlayPort
    publisher: PublisherPort
    log_id: Callable[[], uuid.UUID | None]
    log_full: Callable[[], bool]
    late: "set[asyncio.Task[None]]"
    owed: set[uuid.UUID] = field(default_factory=set)
    """Commands that are in the log, and that Redis has not taken: what this process reads of the
    overlay is not whole while there are any. A rebuild finds them in the log, and may clear this."""
    unsure: set[uuid.UUID] = field(default_factory=set)
    """Commands whose key may have been claimed before, when Redis could not tell."""

    @functools.cached_property
    def _confirming(self) -> Confirming:
        return Confirming(self.catalog, self.keys, self.overlay, self.late, self.owed)

    def read_ahead(self, plan: Plan) -> "asyncio.Task[View]":
        """Begin to read what the early check asks for, while something else is waited for."""
        return asyncio.get_running_loop().create_task(self.checker.read(plan))

    async def submit(
        self, plan: Plan, ahead: "asyncio.Task[View] | None" = None
    ) -> Accepted | Answer:
        """Accept a plan within the deadline. Raises `ProblemError`; then nothing was accepted,
        except with the code `outcome_unknown`: repeating it with the same key is safe.

        `ahead` is what `read_ahead` began for it."""
        until = asyncio.get_running_loop().time() + self.deadline_s
        claimed = await self._claim(plan)
        if isinstance(claimed, Answer):
            return claimed
        asked, plan = plan, plan.with_ids(claimed.ids)
        try:
            self._require_room(again=claimed.again)
            view = await ahead if ahead is not None and plan is asked else None
            command, effects = await self._check(plan, view, again=claimed.again)
            scopes = scopes_of(self.catalog, self.keys, command, effects)
            reach("api_before_overlay")
            shown = await self._show(command, scopes)
            reach("api_after_overlay")
            published = await self._publish(command, effects, until, again=claimed.again)
            reach("api_after_publish")
        except ProblemError as error:
            await self._let_go(plan, error, again=claimed.again)
            raise
        place = None if claimed.again else _place(published)
        sent = Sent(command, effects, place, plan.only_new)
        if claimed.certain or self._confirming.many_late:
            shown = await self._confirming.confirm(sent, shown=shown)
        else:
            self.owed.add(command.command_id)
            self.unsure.add(command.command_id)
            self._confirming.later(self._confirm_if_first(plan, sent, shown=shown))
        _log.info("accepted", command=str(command.command_id), lane=published.lane)
        return Accepted(command, effects, shown, plan.ids)

    async def keep_answer(self, plan: Plan, ids: Sequence[uuid.UUID], answer: Answer) -> None:
        """Remember the answer for repeats of the request, if it came with a key."""
        if plan.key is None or ids[0] in self.unsure:
            return
        try:
            await self.claims.answer(plan.author.id, plan.key, ids, answer)
        except RedisUnavailable:
            return  # the ledger still knows the key

    async def _claim(self, plan: Plan) -> Claimed | Answer:
        if plan.key is None or plan.fingerprint is None:
            return Claimed(plan.ids)
        try:
            return await self.claims.claim(plan.author.id, plan.key, plan.fingerprint, plan.ids)
        except InFlight:
            raise fail("in_flight", "Ask again in a moment.") from None
        except KeyReused:
            raise fail("idempotency_key_reused", "Use a new key for a new request.") from None
        except RedisUnavailable:
            # The key travels in the command: the writer takes it once.
            return Claimed(plan.ids, certain=False)

    def _require_room(self, *, again: bool) -> None:
        """What may be in the log already is brought to its end all the same: it is not more."""
        if self.log_full() and not again:
            raise fail("log_full", "This stored nothing. Reading goes on; send it again later.")

    async def _check(
        self, plan: Plan, view: View | None, *, again: bool
    ) -> tuple[Command, tuple[Effect, ...]]:
        command_id, at = CommandId(plan.command_id), clock.now()
        mutations = tuple([planned.mutation for planned in plan.mutations])

        def command(stream: RowId) -> Command:
            return Command(
                command_id, stream, plan.author, at, mutations, plan.key, plan.fingerprint
            )

        draft = command(RowId(command_id))  # its stream is not known yet
        checked = await self.checker.check(plan, draft, again=again, view=view)
        return command(checked.stream), checked.effects

    async def _show(self, command: Command, scopes: Sequence[Scope]) -> bool:
        """Lay it over the author's view. Kafka is the truth: without Redis, publish all the same."""
        try:
            await self.overlay.put(command, scopes)
        except RedisUnavailable:
            return False
        return True

    def _seal(self, command: Command) -> Record:
        """The signed record. Raises `NotAccepted` while it is not known which log it would go to."""
        log_id = self.log_id()
        if log_id is None:
            raise NotAccepted("the log's identity is not known yet")
        of = trace.current()
        envelope = Envelope(command, log_id, *((of.parent, of.state) if of else ()))
        return seal(envelope, self.keyring, SOURCE)

    async def _publish(
        self,
        command: Command,
        effects: Sequence[Effect],
        until: float,
        *,
        again: bool,
    ) -> Published:
        lane = lane_of(command.stream, self.lanes)
        left_s = until - asyncio.get_running_loop().time() - _RESERVE_S

        def late(published: Published) -> None:
            _log.info("late_acknowledgement", command=str(command.command_id), lane=published.lane)
            self._confirming.later(self._confirm_late(Sent(command, effects, None)))

        try:
            record = self._seal(command)
            return await self.publisher.publish(record, lane, left_s, late)
        except NotAccepted as error:
            if again:  # this attempt failed, but the one before may have arrived
                raise _unknown(command, error) from error
            _log.warning("not_accepted", command=str(command.command_id), why=str(error))
            await self._withdraw(command)
            raise fail("not_accepted", "Nothing was stored. Send it again.") from error
        except OutcomeUnknown as error:
            raise _unknown(command, error) from error

    async def _withdraw(self, command: Command) -> None:
        try:
            await self.overlay.withdraw(command)
        except RedisUnavailable:
            # Redis may have taken the entry although it never said so: try until it answers.
            self._confirming.later(self._withdraw_later(command))

    async def _withdraw_later(self, command: Command) -> None:
        for attempt in range(10):
            await asyncio.sleep(min(2.0**attempt, 60))
            try:
                await self.overlay.withdraw(command)
            except RedisUnavailable:
                continue
            return
        _log.error("overlay_unavailable", command=str(command.command_id), what="withdraw")

    async def _confirm_if_first(self, plan: Plan, sent: Sent, *, shown: bool) -> None:
        """Its key could not be claimed for certain, so it may repeat a request that came before.

        Until that is known it stays unconfirmed. A repeat is taken back: the first is shown.
        """
        first, pause_s = None, _CLAIM_PAUSE_S[0]
        for _ in range(_CLAIM_TRIES):
            first = await self._is_first(plan)
            if first is not None:
                break
            await asyncio.sleep(pause_s * random.uniform(0.5, 1))  # noqa: S311 - no secret
            pause_s = min(2 * pause_s, _CLAIM_PAUSE_S[1])
        self.owed.discard(sent.command.command_id)
        if first is not False:
            await self._confirming.confirm_now(sent, shown=shown)
            await self._reopen(plan)
        elif shown:
            await self._withdraw(sent.command)
        self.unsure.discard(sent.command.command_id)

    async def _reopen(self, plan: Plan) -> None:
        """Its answer was not kept: a repeat does it again, with the same ids."""
        assert plan.key is not None
        with contextlib.suppress(RedisUnavailable):
            await self.claims.reopen(plan.author.id, plan.key, plan.ids)

    async def _is_first(self, plan: Plan) -> bool | None:
        assert plan.key is not None
        assert plan.fingerprint is not None
        try:
            return await self.claims.first(plan.author.id, plan.key, plan.fingerprint, plan.ids)
        except RedisUnavailable:
            return None

    async def _confirm_late(self, sent: Sent) -> None:
        await self._confirming.confirm_now(sent, shown=True)

    async def _let_go(self, plan: Plan, error: ProblemError, *, again: bool) -> None:
        """Give the claim back; after an unknown outcome a repeat must find the same ids."""
        if plan.key is None:
            return
        unknown = again or error.problem.code == "outcome_unknown"
        let_go = self.claims.reopen if unknown else self.claims.release
        try:
            await let_go(plan.author.id, plan.key, plan.ids)
        except RedisUnavailable:
            return  # the claim grows stale and is taken over


def _place(published: Published) -> tuple[int, int] | None:
    return None if published.offset is None else (published.lane, published.offset)


def _unknown(command: Command, error: Exception) -> ProblemError:
    _log.warning("outcome_unknown", command=str(command.command_id), why=str(error))
    detail = (
        "It may have been accepted. Repeat it with the same Idempotency-Key: that is safe."
        if command.idempotency_key is not None
        else "It may have been accepted. Look at the command before you send it again."
    )
    return fail("outcome_unknown", detail, command=str(command.command_id))
