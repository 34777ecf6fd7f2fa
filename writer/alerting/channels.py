"""All channels of an installation: one alert goes to each, and none waits for another."""

import asyncio
from collections.abc import Collection
from typing import Final

from schema.alerts import Alert
from schema.settings import AlertSettings
from schema.telemetry import Log
from writer.alerting.addresses import Address, addresses
from writer.alerting.channel import Attempt, Channel, ChannelState, Settled
from writer.alerting.mailbox import Mailbox, MailChannel
from writer.alerting.pauses import Timing
from writer.alerting.sending import Sender
from writer.alerting.services import Service
from writer.alerting.webhook import Webhook, key_of

_LAST_WORDS_S: Final = 3.0


class Channels:
    """To be used from one event loop.

        channels = Channels.of(settings)        # raises ChannelRefused
        await channels.start()
        channels.send(alert)                    # returns at once, never raises
        states = channels.states()
        await channels.close()

    What waits is in memory only. Who must be sure that an alert arrives although the process may end
    gives `settled`, keeps what was not settled, and sends it again: the same `alert_id` waits once.
    """

    def __init__(self, channels: list[Channel]) -> None:
        self._channels = channels

    @classmethod
    def of(
        cls,
        settings: AlertSettings,
        *,
        settled: Settled = lambda name, alert, delivered: None,
        timing: Timing | None = None,
    ) -> "Channels":
        """The channels that the settings name; none when they name none.

        Raises `ChannelRefused` for a URL that is malformed, or that needs a package which is not there.
        """
        urls = settings.alert_urls.get_secret_value() if settings.alert_urls else ""
        secret = settings.alert_secret.get_secret_value() if settings.alert_secret else None
        log = Log("alerts")
        return cls(
            [
                Channel(address.name, _sender(address, secret), timing or Timing(), settled, log)
                for address in addresses(urls)
            ]
        )

    async def start(self) -> None:
        for channel in self._channels:
            channel.start()

    def send(self, alert: Alert, *, except_for: Collection[str] = ()) -> None:
        """Queue it on every channel, without those named: a channel that fails is told on the others."""
        for channel in self._channels:
            if channel.name not in except_for:
                channel.send(alert)

    def states(self) -> list[ChannelState]:
        """In the order of the setting."""
        return [channel.state() for channel in self._channels]

    async def probe(self, alert: Alert) -> list[Attempt]:
        """Try it once on every channel side by side, and say what became of it."""
        return list(await asyncio.gather(*(channel.attempt(alert) for channel in self._channels)))

    async def close(self) -> None:
        """Gives channels that work a moment for what still waits; the rest is not delivered."""
        try:
            async with asyncio.timeout(_LAST_WORDS_S):
                while self._may_still_send():  # noqa: ASYNC110 - for a moment only
                    await asyncio.sleep(0.02)
        except TimeoutError:
            pass
        await asyncio.gather(*(channel.close() for channel in self._channels))

    def _may_still_send(self) -> bool:
        return any(state.queued and state.state == "working" for state in self.states())


def _sender(address: Address, secret: str | None) -> Sender:
    if address.scheme in ("json", "jsons"):
        try:
            key = key_of(secret) if secret is not None else None
        except ValueError as error:
            raise address.refused(f"AFTERWRITE_ALERT_SECRET: {error}") from None
        return Webhook(address, key)
    if address.scheme in ("mailto", "mailtos"):
        return MailChannel(Mailbox.of(address))
    return Service(address)
