"""One channel: its queue, and the task that carries one alert after the other away."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from schema.alerts import Alert
from schema.clock import Clock, now
from schema.tasks import end_tasks
from schema.telemetry import Log
from writer.alerting.pauses import Pauses, State, Timing
from writer.alerting.sending import Sender
from writer.alerting.waiting import Waiting, WaitingAlerts

_GIVEN_UP_AFTER: Final = 10
_SHOWN: Final = 200

Settled = Callable[[str, Alert, bool], None]
"""Told when a channel (its name) is done with an alert: whether it was delivered, or dropped."""


@dataclass(frozen=True)
class ChannelState:
    """How a channel is. `failing_since` is set from the first failure after a success on.

    `state` is `working`, `retrying` after some failures, `failing` when its breaker is open.
    `queued` counts the alerts that wait, `sent` those it delivered, `dropped` those it gave up.
    No secrets are in any of it.
    """

    name: str
    state: State
    failing_since: datetime | None
    last_error: str | None
    queued: int
    sent: int
    dropped: int


@dataclass(frozen=True)
class Attempt:
    """What became of one attempt; `error` is None when the alert was delivered."""

    name: str
    error: str | None
    seconds: float

    @property
    def delivered(self) -> bool:
        return self.error is None


class Channel:
    """Delivers at least once and in order, unless the other side refuses one and takes later ones.

    Such a one is given up after some attempts; while everything fails, nothing is.
    """

    def __init__(
        self,
        name: str,
        sender: Sender,
        timing: Timing,
        settled: Settled,
        log: Log,
        clock: Clock = now,
    ) -> None:
        self.name = name
        self._sender = sender
        self._timing = timing
        self._settled = settled
        self._log = log
        self._clock = clock
        self._waiting = WaitingAlerts()
        self._pauses = Pauses(timing)
        self._awake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._one_at_a_time = asyncio.Lock()
        self._last_error: str | None = None
        self._sent = 0

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"alerts {self.name}")

    def send(self, alert: Alert) -> None:
        for dropped in self._waiting.put(alert):
            self._drop(dropped, "too many wait")
        self._awake.set()

    @property
    def idle(self) -> bool:
        return not len(self._waiting)

    def state(self) -> ChannelState:
        return ChannelState(
            self.name,
            self._pauses.state,
            self._pauses.failing_since,
            self._last_error,
            len(self._waiting),
            self._sent,
            self._waiting.dropped,
        )

    async def attempt(self, alert: Alert) -> Attempt:
        """Try once, now, beside the queue; counts as any other attempt."""
        began = time.monotonic()
        error = await self._try(alert)
        return Attempt(self.name, error, time.monotonic() - began)

    async def close(self) -> None:
        """What still waits is not delivered."""
        await end_tasks(self._task)
        await self._sender.close()

    async def _run(self) -> None:
        while True:
            await self._awake.wait()
            await self._pause()
            waiting = self._waiting.next()
            if waiting is None:
                self._awake.clear()
                continue
            if await self._try(waiting.alert) is None:
                self._waiting.sent(waiting)
                self._settle(waiting.alert, delivered=True)
                continue
            self._waiting.failed(waiting)
            if waiting.refused >= _GIVEN_UP_AFTER:
                self._give_up(waiting)

    async def _pause(self) -> None:
        while left := self._pauses.left_s(self._clock()):  # noqa: ASYNC110 - the clock may be moved
            await asyncio.sleep(min(left, self._timing.look_s))

    async def _try(self, alert: Alert) -> str | None:
        """The error, None when it was delivered."""
        async with self._one_at_a_time:
            try:
                async with asyncio.timeout(self._timing.timeout_s):
                    remark = await self._sender.send(alert)
            except TimeoutError:
                return self._failed(alert, f"no end after {self._timing.timeout_s:g} s")
            except Exception as error:  # noqa: BLE001 - whatever it is, the next attempt may succeed
                return self._failed(alert, str(error) or type(error).__name__)
        if self._pauses.state != "working":
            self._log.info("channel_works", channel=self.name)
        self._sent += 1
        self._last_error = _one_line(remark) if remark else None
        self._pauses.succeeded()
        return None

    def _failed(self, alert: Alert, error: str) -> str:
        before = self._pauses.state
        self._last_error = _one_line(error)
        self._pauses.failed(self._clock())
        if self._pauses.state != before:
            self._log.warning(
                "channel_failed",
                channel=self.name,
                state=self._pauses.state,
                error=self._last_error,
                alert_id=str(alert.alert_id),
            )
        return self._last_error

    def _give_up(self, waiting: Waiting) -> None:
        """The channel works, and does not take this one."""
        self._waiting.give_up(waiting)
        self._pauses.succeeded()
        self._drop(waiting.alert, f"refused {waiting.refused} times while others were taken")

    def _drop(self, alert: Alert, why: str) -> None:
        self._log.warning(
            "alert_dropped",
            channel=self.name,
            incident=alert.incident,
            phase=alert.phase,
            alert_id=str(alert.alert_id),
            reason=why,
        )
        self._settle(alert, delivered=False)

    def _settle(self, alert: Alert, *, delivered: bool) -> None:
        """Whatever the owner does with it, the channel goes on."""
        try:
            self._settled(self.name, alert, delivered)
        except Exception as error:  # noqa: BLE001 - not ours, and the next alert is waiting
            self._log.error("unexpected_error", channel=self.name, error=repr(error))


def _one_line(text: str) -> str:
    return " ".join(text.split())[:_SHOWN]
