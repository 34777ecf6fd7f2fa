"""From what was asked to what is wrong. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from writer.notifier.incidents import Seen, Trouble
from writer.notifier.observing import DatabaseSeen

_OF_THE_DATABASE: Final = frozenset({"lane_halted", "lane_paused", "no_writer", "stream_parked"})
_EXPLAIN: Final = ("database_down", "log_unavailable", "lane_halted", "lane_paused", "no_writer")
"""Families that explain why commands wait."""


@dataclass(frozen=True)
class Down:
    """A server that cannot be asked: since when, and what it says."""

    since: datetime
    error: str


@dataclass(frozen=True)
class Look:
    """Everything that was found in one look. `database` is what PostgreSQL said last.

    What was not asked yet is in `unasked`: `database`, `redis`, `log`; what cannot be asked
    now, too, of `disks` and `mail`.
    """

    now: datetime
    delay_after: timedelta
    database: DatabaseSeen | None = None
    database_down: Down | None = None
    database_back_at: datetime | None = None
    explained_at: datetime | None = None
    """When something that explains why commands wait was last there."""
    redis_down: Down | None = None
    redis_policy: str | None = None
    log_down: Down | None = None
    oldest: datetime | None = None
    """When the oldest command in the log that waits was accepted."""
    waiting: int | None = None
    full_disks: Mapping[str, str] = field(default_factory=dict)
    failing_channels: Mapping[str, str] = field(default_factory=dict)
    mail_stuck: str | None = None
    unasked: frozenset[str] = frozenset()


WRITERS_RETURN: Final = timedelta(seconds=75)
"""How long after PostgreSQL has come back writers may take to come back, too."""


def seen(look: Look) -> Seen:
    """What is wrong, and what is not known."""
    troubles: dict[str, Trouble] = {}
    unknown: set[str] = set()
    _servers(look, troubles, unknown)
    _lanes(look, troubles, unknown)
    _waits(look, troubles, unknown)
    for broker, how_full in look.full_disks.items():
        troubles[f"disk_full:{broker}"] = Trouble(how_full)
    for name, error in look.failing_channels.items():
        troubles[f"channel_failing:{name}"] = Trouble(error)
    if look.mail_stuck is not None:
        troubles["mail_failing"] = Trouble(look.mail_stuck)
    for name, family in (("disks", "disk_full"), ("mail", "mail_failing")):
        if name in look.unasked:
            unknown.add(family)
    return Seen(troubles, frozenset(unknown))


def explains(found: Seen) -> bool:
    """Whether something is wrong for which commands wait."""
    return any(kind.startswith(_EXPLAIN) for kind in found.troubles)


def _servers(look: Look, troubles: dict[str, Trouble], unknown: set[str]) -> None:
    servers = (
        ("database", "database_down", look.database_down, look.waiting),
        ("redis", "redis_down", look.redis_down, None),
        ("log", "log_unavailable", look.log_down, None),
    )
    for name, family, down, waiting in servers:
        if name in look.unasked:
            unknown.add(family)
        elif down is not None:
            troubles[family] = Trouble(down.error, waiting, down.since)
    if look.redis_policy is None or look.redis_down is not None:
        unknown.add("redis_evicts")
    elif look.redis_policy.startswith("allkeys"):
        troubles["redis_evicts"] = Trouble(f"maxmemory-policy is {look.redis_policy}")


def _lanes(look: Look, troubles: dict[str, Trouble], unknown: set[str]) -> None:
    if look.database is None or look.database_down is not None:
        unknown |= _OF_THE_DATABASE
        return
    back = look.database_back_at
    if back is not None and look.now - back < WRITERS_RETURN:
        unknown.add("no_writer")
    for lane in look.database.lanes.values():
        if lane.halted is not None:
            troubles[f"lane_halted:{lane.lane}"] = Trouble(lane.halted, look.waiting)
        elif lane.paused is not None:
            troubles[f"lane_paused:{lane.lane}"] = Trouble(lane.paused, look.waiting)
        elif lane.owner is None and "no_writer" not in unknown:
            troubles[f"no_writer:{lane.lane}"] = Trouble(None, look.waiting)
    since = look.database.parked_since
    if since is not None and look.now - since >= look.delay_after:
        codes = sorted(look.database.parked_codes.items(), key=lambda item: -item[1])
        reason = ", ".join(f"{count} × {code}" for code, count in codes[:10])
        parked = sum(look.database.parked_codes.values())
        troubles["stream_parked"] = Trouble(reason, parked, since)


def _waits(look: Look, troubles: dict[str, Trouble], unknown: set[str]) -> None:
    """Commands that wait for no reason that has an incident of its own."""
    if look.log_down is not None or look.database_down is not None or "log" in look.unasked:
        unknown.add("oldest_pending")
        return
    if any(kind.startswith(_EXPLAIN) for kind in troubles):
        unknown.add("oldest_pending")
        return
    if look.oldest is None:
        return
    # What an outage has left behind has as long again to be worked off.
    since = max(look.oldest, look.explained_at or look.oldest)
    if look.now - since < look.delay_after:
        return
    troubles["oldest_pending"] = Trouble(None, look.waiting, look.oldest)
