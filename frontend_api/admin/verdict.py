"""How it is, in one sentence; and since when, in words."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from frontend_api.admin.facts import Picture, Told
from frontend_api.admin.incidents import Incident
from frontend_api.admin.statements import MOST_COUNTED

Level = Literal["well", "attention", "trouble"]
_RANK: Final = {"well": 0, "attention": 1, "trouble": 2}
_STALE_S: Final = 60.0
"""An answer that is older says nothing of now: whoever should ask again does not."""
_NEARLY: Final = 5.0
"""So many points below the limit, a disk is worth a word."""


@dataclass(frozen=True)
class Verdict:
    """`sentence` says the worst first; `more` are the other things that are not well."""

    level: Level
    sentence: str
    more: tuple[str, ...] = ()


def verdict(
    picture: Picture,
    incidents: Sequence[Incident],
    delayed_after_s: float,
    full_percent: float,
    reading: bool = True,
) -> Verdict:
    """`full_percent` is how full a broker's disk may be; `reading` is False while the alerts cannot
    be followed."""
    found = [*_servers(picture), *_lanes(picture), *_delay(picture, delayed_after_s)]
    found += _disk(picture, full_percent)
    found += _work(picture, incidents)
    if not found:
        if None in (picture.ledger.ok, picture.log.ok, picture.redis.ok) or not reading:
            return Verdict("attention", "Still looking: not every server has been asked yet.")
        return Verdict("well", f"All is well: {_well(picture)}")
    worst = max(found, key=lambda f: _RANK[f[0]])
    level, sentence = worst
    rest = tuple(one[1] for one in found if one is not worst)
    if level == "attention":
        return Verdict(level, f"Changes are being saved. {sentence}", rest)
    return Verdict(level, sentence, rest)


Finding = tuple[Level, str]


def _servers(picture: Picture) -> list[Finding]:
    found: list[Finding] = []
    safe = _safe(picture)
    if picture.log.ok is False:
        found.append((
            "trouble",
            f"Kafka has been away for {for_how_long(picture.log, picture.now)}: new changes are refused. "
            "What was accepted before is in its log.",
        ))  # fmt: skip
    if picture.ledger.ok is False:
        for_ = for_how_long(picture.ledger, picture.now)
        found.append(("trouble", f"PostgreSQL has been away for {for_}; {safe}"))
    if picture.redis.ok is False:
        found.append((
            "trouble",
            f"Redis has been away for {for_how_long(picture.redis, picture.now)}: changes are accepted and "
            "saved, but their authors do not see them until then.",
        ))  # fmt: skip
    for name, told in (
        ("PostgreSQL", picture.ledger),
        ("Kafka", picture.log),
        ("Redis", picture.redis),
    ):
        if told.ok and told.at is not None and (picture.now - told.at).total_seconds() > _STALE_S:
            age = length((picture.now - told.at).total_seconds())
            found.append(("attention", f"{name} was asked {age} ago for the last time."))
    if picture.redis.ok and picture.redis.value is False:
        found.append((
            "attention",
            "The pending overlay is being rebuilt: authors may miss some of their newest changes.",
        ))  # fmt: skip
    return found


def _lanes(picture: Picture) -> list[Finding]:
    if picture.ledger.ok is False:
        return []  # what is known of lanes is old, and PostgreSQL is the reason
    found: list[Finding] = []
    for lane in picture.lanes:
        waits = _safe(picture, lane.lane)
        if lane.halted is not None:
            found.append(("trouble", f"Lane {lane.lane} is halted: {lane.halted}; {waits}"))
        elif lane.paused is not None:
            found.append(("trouble", f"Lane {lane.lane} is paused: {lane.paused}; {waits}"))
        elif lane.owner is None:
            found.append(("trouble", f"No writer holds lane {lane.lane}; {waits}"))
    return found


def _delay(picture: Picture, delayed_after_s: float) -> list[Finding]:
    oldest = picture.oldest
    if oldest is None or picture.ledger.ok is False:
        return []
    waited_s = (picture.now - oldest).total_seconds()
    if waited_s < delayed_after_s:
        return []
    told = (
        f"The writer is behind: the oldest change has waited {length(waited_s)}; {_safe(picture)}"
    )
    return [("trouble", told)]


def _disk(picture: Picture, full_percent: float) -> list[Finding]:
    if picture.disk is None or picture.disk.used_percent < full_percent - _NEARLY:
        return []
    told = f"Kafka's disk is {picture.disk.used_percent:.0f} % full"
    if picture.disk.used_percent > full_percent:
        return [("trouble", f"{told}: new changes are refused.")]
    return [("attention", f"{told}; beyond {full_percent:.0f} % new changes are refused.")]


def _work(picture: Picture, incidents: Sequence[Incident]) -> list[Finding]:
    found: list[Finding] = []
    counts = picture.counts
    if counts.streams:
        found.append(("attention", f"{number(counts.streams, 'stream is', 'streams are')} parked."))
    if counts.dead:
        told = number(counts.dead, "dead letter waits", "dead letters wait")
        found.append(("attention", f"{told} for somebody to look."))
    for incident in incidents:
        if incident.channel is not None:
            found.append(("attention", f"The alert channel {incident.channel} fails."))
    others = [i for i in incidents if i.channel is None]
    if others:
        told = number(len(others), "incident is", "incidents are")
        found.append(("attention", f"{told} open: {others[0].latest.title}."))
    return found


def _well(picture: Picture) -> str:
    p95 = picture.counts.p95_s
    waits = picture.waiting
    said = (
        f"changes are saved within {length(p95, fine=True)}" if p95 is not None else "nothing to do"
    )
    if not waits:
        return f"{said}; nothing waits."
    return f"{said}; {number(waits, 'change is', 'changes are')} on the way."


def _safe(picture: Picture, lane: int | None = None) -> str:
    waits = picture.lag(lane) if lane is not None else picture.waiting
    if waits is None:
        return "how many changes wait is not known; they are safe."
    if not waits:
        return "nothing waits."
    return f"{number(waits, 'change waits and is', 'changes wait; they are')} safe."


def for_how_long(told: Told[Any], now: datetime) -> str:
    """How long a server has been as it is."""
    if told.since is None:
        return "some time"
    shown = length((now - told.since).total_seconds())
    return f"at least {shown}" if told.at_least else shown


def number(count: int, one: str, many: str) -> str:
    """A count with its noun; of what was counted in part only, that there are more."""
    if count > MOST_COUNTED:
        return f"more than {MOST_COUNTED:,} {many}"
    return f"{count:,} {one if count == 1 else many}"


def length(seconds: float, *, fine: bool = False) -> str:
    """A length of time for people: two digits that matter. `fine`: below a second, too."""
    if seconds < 1:
        return f"{max(seconds, 0) * 1000:.0f} ms" if fine else "less than 1 s"
    for from_, size, unit in ((172_800, 86_400, "d"), (7200, 3600, "h"), (60, 60, "min")):
        if seconds >= from_:
            return f"{int(seconds // size)} {unit}"
    return f"{seconds:.1f} s" if fine and seconds < 10 else f"{int(seconds)} s"
