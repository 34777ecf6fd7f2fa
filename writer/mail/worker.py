"""One mail worker: polls always, keeps the windows of its partitions, and has one mail in work at a time."""

import asyncio
import time
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Final, Protocol

from schema.clock import Clock
from schema.tasks import end_tasks
from schema.telemetry import Log
from writer.failures import LogUnavailable
from writer.mail.breaker import Breaker
from writer.mail.consumer import REBALANCE_S, Given, MailConsumer
from writer.mail.metrics import Metrics
from writer.mail.sending import Finished, Later, NotOwner, horizon_of
from writer.mail.state_log import StateLog
from writer.mail.watch import Doubt, Pulse, Stuck
from writer.mail.window import Waiting, Window

_POLL_S: Final = 0.25
_AGAIN_S: Final = 1.0
_COMMIT_EVERY_S: Final = 1.0
_HAND_OVER_S: Final = REBALANCE_S - 10
"""How long partitions are not given away because a mail is in work."""
_FORGET_MOST: Final = 500
_DAY_S: Final = 86_400.0


class Handles(Protocol):
    """What is done with one mail; `writer.mail.sending.Sending`."""

    async def handle(self, waiting: Waiting) -> Finished | Later: ...


class Worker:
    """Made by `writer.mail.app`; `run` until `stopping` is set."""

    def __init__(
        self,
        *,
        worker: str,
        bootstrap: str,
        topic: str,
        group: str,
        horizon_s: float,
        states: StateLog,
        sending: Handles,
        breaker: Breaker,
        metrics: Metrics,
        pulse: Pulse,
        clock: Clock,
        log: Log,
        stopping: asyncio.Event,
    ) -> None:
        self._worker = worker
        self._states = states
        self._sending = sending
        self._breaker = breaker
        self._metrics = metrics
        self._pulse = pulse
        self._clock = clock
        self._log = log
        self._stopping = stopping
        self._horizon_s = horizon_s
        self._keep_s = horizon_s + _DAY_S
        self._windows: dict[int, Window] = {}
        self._lost: set[int] = set()
        self._taken = Doubt("another worker has a partition that the group has given to us")
        self._idle = asyncio.Event()
        self._idle.set()
        self._wake = asyncio.Event()
        self.consumer = MailConsumer(bootstrap, topic, group, self._hand_over)

    async def run(self) -> None:
        """Raises `Stuck`, or what one of the tasks beside raised, when the process must end."""
        await self._joined()
        beside = [
            asyncio.create_task(self._states.follow()),
            asyncio.create_task(self._send_forever()),
            asyncio.create_task(self._commit_forever()),
        ]
        try:
            while not self._stopping.is_set():
                await self._turn()
                _see_to(beside, self._stopping)
        finally:
            await self._stopped(beside)

    async def _joined(self) -> None:
        """The memory is complete before partitions are asked for."""
        while not self._stopping.is_set():
            self._pulse.beat()
            try:
                await self._states.start()
                break
            except (LogUnavailable, TimeoutError) as error:
                self._recovering("mail state", error)
                await asyncio.sleep(_AGAIN_S)
        await self._start_consumer()

    async def _start_consumer(self) -> None:
        """Joining waits while another hands its partitions over; the loop is alive meanwhile."""
        starting = asyncio.ensure_future(self.consumer.start())
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            while not starting.done() and not stopping.done():
                self._pulse.beat()
                await asyncio.wait(
                    {starting, stopping}, timeout=_POLL_S, return_when=asyncio.FIRST_COMPLETED
                )
            if starting.done():
                starting.result()
        finally:
            await end_tasks(starting, stopping)

    # -- taking mails --------------------------------------------------------------------------

    async def _turn(self) -> None:
        """One round of the loop: poll, take over what was given to us, take what came."""
        self._pulse.beat()
        if self.consumer.broken is not None:
            raise Stuck("partitions could not be handed over") from self.consumer.broken
        try:
            records = await self.consumer.poll(_POLL_S)
            if self.consumer.given is not None:
                await self._take_over(self.consumer.given)
                return
        except (LogUnavailable, TimeoutError) as error:
            self._recovering("mail", error)
            await asyncio.sleep(_AGAIN_S)
            return
        now = self._clock()
        for record in records:
            window = self._windows.get(record.partition)
            if window is not None:
                window.take(record, now, horizon_of(record.value, self._horizon_s))
        for number, window in self._windows.items():
            self.consumer.pause(number, paused=window.full)
        self._metrics.waiting.set(sum(len(window) for window in self._windows.values()))
        self._taken.note(not self._lost, time.monotonic())
        if records:
            self._wake.set()

    async def _take_over(self, given: Given) -> None:
        """Fence the one who had them before, know what he did, and begin at the committed offsets."""
        for number in given.partitions:
            self._pulse.beat()
            await self._states.own(number, self._worker, self._clock())
        positions = await self.consumer.begin(given)
        self._windows = {number: Window(at) for number, at in positions.items()}
        self._lost = set()
        self._log.info("mail_partitions", partitions=sorted(given.partitions))
        self._wake.set()

    async def _hand_over(self) -> None:
        """Finish what is in work, commit, and let go. Called while partitions are given out anew."""
        windows, self._windows = self._windows, {}
        with suppress(TimeoutError):
            async with asyncio.timeout(_HAND_OVER_S):
                await self._idle.wait()
        await self._commit(windows)

    # -- sending -------------------------------------------------------------------------------

    async def _send_forever(self) -> None:
        while not self._stopping.is_set():
            found = self._next()
            if found is None:
                self._wake.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_POLL_S):
                        await self._wake.wait()
                continue
            self._idle.clear()
            try:
                await self._one(*found)
            finally:
                self._idle.set()

    def _next(self) -> tuple[Window, Waiting] | None:
        """The mail that has been due for longest; while the server is away, only what is given up."""
        now = self._clock()
        found: list[tuple[Window, Waiting]] = []
        for window in self._windows.values():
            waiting = window.given_up(now)
            if waiting is None and self._breaker.closed(now):
                waiting = window.next_due(now)
            if waiting is not None:
                found.append((window, waiting))
        return min(found, key=lambda pair: pair[1].due, default=None)

    async def _one(self, window: Window, waiting: Waiting) -> None:
        """The window may be another's when this returns: then nothing is done to ours."""
        partition = waiting.record.partition
        try:
            result = await self._sending.handle(waiting)
        except (LogUnavailable, TimeoutError) as error:
            self._recovering("mail", error)
            window.put(replace(waiting, due=self._clock() + timedelta(seconds=_AGAIN_S)))
        except NotOwner:
            self._log.warning("mail_partition_taken", partition=partition)
            if self._windows.get(partition) is window:
                del self._windows[partition]
                self._lost.add(partition)
        else:
            if isinstance(result, Finished):
                window.finish(waiting.record.offset)
            else:
                window.put(result.waiting)

    # -- offsets -------------------------------------------------------------------------------

    async def _commit_forever(self) -> None:
        while True:
            await asyncio.sleep(_COMMIT_EVERY_S)
            try:
                await self._commit(self._windows)
                await self._forget()
            except (LogUnavailable, TimeoutError) as error:
                self._recovering("mail offsets", error)

    async def _commit(self, windows: dict[int, Window]) -> None:
        moved = {n: w.committable for n, w in windows.items() if w.committable != w.committed}
        try:
            await self.consumer.commit(moved)
        except LogUnavailable as error:
            self._recovering("mail offsets", error)  # they are read again, and known as sent
            return
        for number, at in moved.items():
            windows[number].committed = at

    async def _forget(self) -> None:
        """What is older than any mail that can still be sent is taken out of the state topic."""
        before = self._clock() - timedelta(seconds=self._keep_s)
        for number in list(self._windows):
            old = self._states.memory.old(number, before, _FORGET_MOST)
            if old:
                await self._states.forget(number, old)

    async def _stopped(self, beside: list["asyncio.Task[None]"]) -> None:
        """The mail in work is finished, unless the worker ends because it is stuck."""
        if self._stopping.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(_HAND_OVER_S):
                    await self._idle.wait()
        await end_tasks(*beside)
        if self._stopping.is_set():
            await self._commit(self._windows)
        await self.consumer.close()
        await self._states.close()

    def _recovering(self, what: str, error: Exception) -> None:
        self._log.warning("recovering", what=what, error=repr(error), wait_s=_AGAIN_S)


def _see_to(tasks: list["asyncio.Task[None]"], stopping: asyncio.Event) -> None:
    """Raises what a task raised; none may end while the worker is to go on."""
    for task in tasks:
        if task.done() and not stopping.is_set():
            task.result()
            raise Stuck("a part of the worker has ended")
