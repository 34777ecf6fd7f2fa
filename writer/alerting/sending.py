"""What a channel asks of whatever carries its alerts away."""

from typing import Protocol

from schema.alerts import Alert


class SendFailed(Exception):
    """An alert could not be delivered now; `str()` says why, without secrets."""


class Sender(Protocol):
    """Carries alerts to one place. Not more than one call at a time, each cancelled after the timeout."""

    async def send(self, alert: Alert) -> str | None:
        """Returns when the other side has taken it, with a remark if only for some recipients.

        Raises when it has not, or nobody knows.
        """

    async def close(self) -> None:
        """Let go of what is held. Called once, when no `send` is under way."""
