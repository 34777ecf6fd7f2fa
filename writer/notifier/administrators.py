"""What administrators are told: looks each second, keeps the incidents, gives alerts to the channels.

It never waits for Kafka longer than a moment: with the log away, too, alerts go out all the same, and
are remembered when it is back. An alert is owed until every channel is done with it.
"""

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from schema.alerts import Alert
from schema.failpoints import reach
from schema.fields import parse_time, render_time
from schema.identifiers import derived_id
from schema.telemetry import Log
from writer.notifier import alert_texts
from writer.notifier.incidents import Incident, Patience, Seen, family, step
from writer.notifier.memory import Memory
from writer.notifier.metrics import Metrics

_REMEMBER_S: Final = 1.5
_MAX_COPIES: Final = 1000


class ChannelStatePort(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def state(self) -> str: ...

    @property
    def last_error(self) -> str | None: ...


class ChannelsPort(Protocol):
    """The channels to administrators."""

    def send(self, alert: Alert, *, except_for: Collection[str] = ()) -> None: ...

    def states(self) -> Sequence[ChannelStatePort]: ...


@dataclass
class Administrators:
    """Tells administrators. `look` says what is wrong now."""

    memory: Memory
    channels: ChannelsPort
    look: Callable[[datetime], Seen]
    patience: Patience
    rejections_every: timedelta
    metrics: Metrics
    log: Log
    incidents: dict[str, Incident] = field(default_factory=dict)
    copies: "deque[Alert]" = field(default_factory=lambda: deque(maxlen=_MAX_COPIES))
    """Alerts of which the alerts topic has no copy yet."""
    _generation: int = -1
    _done_with: dict[str, set[str]] = field(default_factory=dict)
    _given: set[str] = field(default_factory=set)
    """Keys of the alerts that the channels have and are not done with."""

    async def tick(self, now: datetime) -> None:
        """One look, and what follows from it. Nothing while another notifier leads."""
        if not self.memory.leading:
            self.incidents = {}
            return
        if self._generation != self.memory.generation:
            self._generation = self.memory.generation
            self._recall()
        before = self.incidents
        self.incidents, alerts = step(before, self.look(now), now, self.patience)
        alerts += self._summary(now)
        self._count()
        if alerts:
            self._remember(before, alerts)
            await self.memory.written(_REMEMBER_S)
            reach("notifier_before_alert")
        for alert in alerts:
            self._send(alert)

    def settled(self, channel: str, alert: Alert, delivered: bool) -> None:
        """A channel is done with an alert: it delivered it, or gave it up."""
        key = f"alert:{alert.alert_id}"
        done = self._done_with.setdefault(key, set())
        done.add(channel)
        if done >= self._to_be_told(alert):
            self._forget(key)

    def _recall(self) -> None:
        """What a former notifier knew. What it still owed is sent again, with the same ids."""
        for value in self.memory.below("incident:").values():
            self.incidents.setdefault(value["kind"], Incident.from_json(value))
        for value in self.memory.below("alert:").values():
            alert = Alert.from_json(value)
            if f"alert:{alert.alert_id}" not in self._given:
                self._send(alert)

    def _remember(self, before: Mapping[str, Incident], alerts: Sequence[Alert]) -> None:
        records: dict[str, Any] = {f"alert:{a.alert_id}": a.to_json() for a in alerts}
        for alert in alerts:
            incident = self.incidents.get(alert.incident)
            key = f"incident:{alert.incident}"
            if incident is not None and incident.told:
                records[key] = incident.to_json()
            elif alert.incident in before:
                records[key] = None
        self.memory.put(records)

    def _send(self, alert: Alert) -> None:
        self.log.info("incident", kind=alert.incident, phase=alert.phase, title=alert.title)
        self.metrics.alerts.labels(alert.phase).inc()
        self.copies.append(alert)
        self._given.add(f"alert:{alert.alert_id}")
        self.channels.send(alert, except_for=_itself(alert))
        if not self._to_be_told(alert):
            self._forget(f"alert:{alert.alert_id}")

    def _to_be_told(self, alert: Alert) -> set[str]:
        return {state.name for state in self.channels.states()} - _itself(alert)

    def _forget(self, key: str) -> None:
        self._done_with.pop(key, None)
        self._given.discard(key)
        if key in self.memory.values:
            self.memory.put({key: None})

    def _summary(self, now: datetime) -> list[Alert]:
        """Rejected commands, summed up by reason."""
        counted = self.memory.values.get("rejections")
        if not counted or now - parse_time(counted["since"]) < self.rejections_every:
            return []
        since = parse_time(counted["since"])
        title, text = alert_texts.rejections(counted["codes"], counted.get("open"))
        self.memory.put({"rejections": None})
        case = alert_texts.CASES["rejections"]
        return [
            Alert(
                alert_id=derived_id("alert", "rejections", render_time(since)),
                incident="rejections",
                phase="summary",
                severity=case.severity,
                title=title,
                text=text,
                since=since,
                at=now,
                waiting=None,
                link=f"{self.patience.links}#f-{case.number:02}",
            )
        ]

    def _count(self) -> None:
        open_: dict[str, int] = dict.fromkeys(alert_texts.CASES, 0)
        for incident in self.incidents.values():
            open_[family(incident.kind)] += incident.told > 0
        for kind, count in open_.items():
            self.metrics.incidents.labels(kind).set(count)


def _itself(alert: Alert) -> set[str]:
    """The channel that an alert is about: it is told on the others."""
    name, _, part = alert.incident.partition(":")
    return {part} if name == "channel_failing" else set()
