"""Kafka topics: their names, their settings, and the lane of a stream."""

import uuid
from dataclasses import dataclass

from schema.settings import Settings

MAX_MESSAGE_BYTES = 1_048_576
"""The broker's limit. The producer's is half of it, and a request body is a quarter at most."""
MAX_REQUEST_BYTES = 524_288


@dataclass(frozen=True)
class Topic:
    """One topic as `afterwrite migrate` makes it."""

    name: str
    partitions: int
    config: dict[str, str]


@dataclass(frozen=True)
class Topics:
    """All topics of an installation.

    `notices` is the memory of who was told what, `mail_state` of which mail was sent: both outlive
    PostgreSQL and Redis being away. `acts` carries what operators order by the page.
    """

    commands: Topic
    dead_letters: Topic
    outcomes: Topic
    notices: Topic
    mail: Topic
    mail_state: Topic
    mail_dead_letters: Topic
    alerts: Topic
    acts: Topic

    def all(self) -> tuple[Topic, ...]:
        return (
            self.commands,
            self.dead_letters,
            self.outcomes,
            self.notices,
            self.mail,
            self.mail_state,
            self.mail_dead_letters,
            self.alerts,
            self.acts,
        )


MAIL_PARTITIONS = 8
"""At most so many mail workers have work at once."""
_WEEK_MS = str(7 * 24 * 3600 * 1000)
_MARGIN_S = 2 * 24 * 3600
"""Mail stays in its topic so much longer than it is tried."""


def topics(settings: Settings, min_insync_replicas: int = 1) -> Topics:
    """The topics of these settings.

    Commands have no retention limit, neither of time nor of size: an unapplied command is never
    deleted. The topic is trimmed behind the applied position only.
    """
    prefix, lanes = settings.prefix, settings.lanes
    common = {
        "min.insync.replicas": str(min_insync_replicas),
        "unclean.leader.election.enable": "false",
        "max.message.bytes": str(MAX_MESSAGE_BYTES),
    }
    endless = common | {
        "cleanup.policy": "delete",
        "retention.ms": "-1",
        "retention.bytes": "-1",
        "message.timestamp.type": "LogAppendTime",
    }
    weekly = common | {"cleanup.policy": "delete", "retention.ms": _WEEK_MS}
    mail_ms = str(max(int(_WEEK_MS), int((settings.horizon_s + _MARGIN_S) * 1000)))
    compacted = common | {"cleanup.policy": "compact"}
    return Topics(
        commands=Topic(f"{prefix}.commands", lanes, endless),
        dead_letters=Topic(f"{prefix}.commands.dlq", 1, endless),
        outcomes=Topic(f"{prefix}.outcomes", lanes, weekly),
        notices=Topic(f"{prefix}.notices", 1, compacted),
        mail=Topic(f"{prefix}.mail", MAIL_PARTITIONS, weekly | {"retention.ms": mail_ms}),
        mail_state=Topic(f"{prefix}.mail.state", MAIL_PARTITIONS, compacted),
        mail_dead_letters=Topic(f"{prefix}.mail.dlq", 1, endless),
        alerts=Topic(f"{prefix}.alerts", 1, weekly),
        acts=Topic(f"{prefix}.acts", 1, weekly),
    )


def lane_of(stream: uuid.UUID, lanes: int) -> int:
    """The lane of a stream: the same in every process, independent of any client's partitioner.

    The low 62 bits of a UUIDv7 are random, of a derived id they are a hash: both spread evenly.
    """
    return (stream.int & ((1 << 62) - 1)) % lanes
