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
    """All topics of an installation."""

    commands: Topic
    dead_letters: Topic
    outcomes: Topic
    notices: Topic
    mail: Topic
    alerts: Topic

    def all(self) -> tuple[Topic, ...]:
        return (
            self.commands,
            self.dead_letters,
            self.outcomes,
            self.notices,
            self.mail,
            self.alerts,
        )


_WEEK_MS = str(7 * 24 * 3600 * 1000)


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
    return Topics(
        commands=Topic(f"{prefix}.commands", lanes, endless),
        dead_letters=Topic(f"{prefix}.commands.dlq", 1, endless),
        outcomes=Topic(f"{prefix}.outcomes", lanes, weekly),
        notices=Topic(f"{prefix}.notices", 1, common | {"cleanup.policy": "compact"}),
        mail=Topic(f"{prefix}.mail", 1, weekly),
        alerts=Topic(f"{prefix}.alerts", 1, weekly),
    )


def lane_of(stream: uuid.UUID, lanes: int) -> int:
    """The lane of a stream: the same in every process, independent of any client's partitioner.

    The low 62 bits of a UUIDv7 are random, of a derived id they are a hash: both spread evenly.
    """
    return (stream.int & ((1 << 62) - 1)) % lanes
