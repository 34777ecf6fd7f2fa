"""Incidents, as the alerts tell them: which are open, and what was told lately."""

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from schema.alerts import Alert

MOST_ALERTS: Final = 1000
MOST_INCIDENTS: Final = 500
_CHANNEL: Final = "channel_failing:"
_LASTING: Final = ("opened", "reminder")


@dataclass(frozen=True)
class Incident:
    """What the latest alert of it says."""

    name: str
    open: bool
    latest: Alert

    @property
    def since(self) -> datetime:
        return self.latest.since

    @property
    def channel(self) -> str | None:
        """The alert channel that it is about, if it is about one."""
        return self.name[len(_CHANNEL) :] if self.name.startswith(_CHANNEL) else None


class Alerts:
    """The latest alerts, and what follows from them. Fed in the order of the topic; bounded."""

    def __init__(self) -> None:
        self._latest: deque[Alert] = deque(maxlen=MOST_ALERTS)
        self._known: OrderedDict[object, None] = OrderedDict()
        self._incidents: OrderedDict[str, Incident] = OrderedDict()

    def take(self, alert: Alert) -> None:
        """One alert; the same one again is no news."""
        if alert.alert_id in self._known:
            return
        self._known[alert.alert_id] = None
        if len(self._known) > MOST_ALERTS:
            self._known.popitem(last=False)
        self._latest.appendleft(alert)
        if alert.phase not in (*_LASTING, "closed"):
            return
        self._incidents.pop(alert.incident, None)
        made = Incident(alert.incident, alert.phase in _LASTING, alert)
        self._incidents[alert.incident] = made
        if len(self._incidents) > MOST_INCIDENTS:
            closed = (name for name, i in self._incidents.items() if not i.open)
            self._incidents.pop(next(closed, next(iter(self._incidents))))

    @property
    def latest(self) -> Sequence[Alert]:
        """Newest first."""
        return tuple(self._latest)

    @property
    def open(self) -> Sequence[Incident]:
        """Critical ones first, then those that have lasted longest."""
        return tuple(
            sorted(
                (i for i in self._incidents.values() if i.open),
                key=lambda i: (i.latest.severity != "critical", i.since),
            )
        )

    @property
    def failing_channels(self) -> Sequence[Incident]:
        return tuple(i for i in self.open if i.channel is not None)
