"""How full the brokers' disks are: Kafka's DescribeLogDirs (KIP-827), the bytes of it. No I/O.

Both processes ask, and aiokafka does not know this request. What it needs of a request is a shape,
which `DescribeLogDirs` has without importing it: each process hands it to a client of its own.
"""

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final, Protocol

_API_KEY: Final = 35
_VERSION: Final = 4
"""The first one that tells the size of the disk: Kafka 3.3."""
_NO_TAGS: Final = b"\x00"
_NO_TOPICS: Final = b"\x01"
"""An array of no elements: of all the topics in a folder nothing is told, only of the folder."""


@dataclass(frozen=True)
class BrokerDisk:
    """The disk of a broker's log folder; of several folders, the fullest."""

    broker: int
    total_bytes: int
    usable_bytes: int

    @property
    def used_ratio(self) -> float:
        """Between 0 and 1."""
        return 1 - self.usable_bytes / self.total_bytes


class DisksUnknown(Exception):
    """No broker tells how full its disk is, or this one is too old to."""


class Client(Protocol):
    """What is used of aiokafka's client, whose own types are not known here."""

    @property
    def cluster(self) -> Any: ...

    async def send(self, node_id: int, request: Any) -> Any: ...


async def disk_of(client: Client, broker: int) -> BrokerDisk:
    """Ask one broker. Raises `DisksUnknown`, and what the client raises."""
    answer: LogDirs = await client.send(broker, DescribeLogDirs())
    disks = [BrokerDisk(broker, total, usable) for total, usable in answer.sizes if total > 0]
    if not disks:
        raise DisksUnknown(f"broker {broker} does not tell (error {answer.error})")
    return max(disks, key=lambda disk: disk.used_ratio)


def brokers_of(client: Client) -> list[int]:
    """The brokers that the client knows, by their ids."""
    return sorted(broker.nodeId for broker in client.cluster.brokers())


def fullest(disks: Iterable[BrokerDisk]) -> float:
    """The highest ratio of used space; 0 of no disks."""
    return max((disk.used_ratio for disk in disks), default=0.0)


@dataclass(frozen=True)
class Room:
    """Whether there is room for new commands. Once full, it is full until 5 points less are used:
    else a disk that is just as full as it may be would let changes in by turns."""

    limit_percent: float
    full: bool = False

    def after(self, disks: Iterable[BrokerDisk]) -> "Room":
        """What holds after this look. Disks that nobody knows are not full."""
        limit = self.limit_percent - (_HYSTERESIS if self.full else 0)
        return Room(self.limit_percent, fullest(disks) * 100 > limit)


_HYSTERESIS: Final = 5.0


# -- the bytes --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Header:
    """Of a request, or of the answer to it."""

    correlation_id: int
    client_id: str = ""

    def encode(self) -> bytes:
        name = self.client_id.encode()
        fixed = struct.pack(">hhih", _API_KEY, _VERSION, self.correlation_id, len(name))
        return fixed + name + _NO_TAGS


@dataclass(frozen=True)
class LogDirs:
    """The answer. `sizes` has total and usable bytes of each log folder, -1 where they are unknown."""

    error: int
    sizes: tuple[tuple[int, int], ...]

    @classmethod
    def decode(cls, data: BytesIO) -> "LogDirs":
        """Raises `DisksUnknown` for bytes that are cut short."""
        try:
            return cls._read(_Reader(data))
        except struct.error as error:
            raise DisksUnknown(f"the answer is cut short: {error}") from error

    @classmethod
    def _read(cls, of: "_Reader") -> "LogDirs":
        _throttled_ms, error = of.numbers(">ih")
        sizes = []
        for _ in range(of.length()):
            (failed,) = of.numbers(">h")
            of.skip(of.length())  # its path
            for _ in range(of.length()):
                of.skip(of.length())  # a topic's name
                for _ in range(of.length()):
                    of.skip(4 + 8 + 8 + 1)
                    of.tags()
                of.tags()
            total, usable = of.numbers(">qq")
            of.tags()
            sizes.append((-1, -1) if failed else (total, usable))
        of.tags()
        return cls(error, tuple(sizes))


class DescribeLogDirs:
    """The request, in the shape in which aiokafka takes one: builder and message at once."""

    RESPONSE_TYPE = LogDirs

    def prepare(self, versions: Mapping[int, tuple[int, int]]) -> "DescribeLogDirs":
        """Called with the versions that the broker speaks. Raises `DisksUnknown`."""
        low, high = versions.get(_API_KEY, (0, -1))
        if not low <= _VERSION <= high:
            raise DisksUnknown(f"the broker speaks DescribeLogDirs {low} to {high}, not {_VERSION}")
        return self

    def build_request_header(self, correlation_id: int, client_id: str) -> _Header:
        return _Header(correlation_id, client_id)

    def encode(self) -> bytes:
        return _NO_TOPICS + _NO_TAGS

    def parse_response_header(self, data: BytesIO) -> _Header:
        of = _Reader(data)
        (correlation_id,) = of.numbers(">i")
        of.tags()
        return _Header(correlation_id)


@dataclass(frozen=True)
class _Reader:
    """Reads what Kafka's flexible versions are made of."""

    data: BytesIO

    def numbers(self, layout: str) -> tuple[int, ...]:
        return struct.unpack(layout, self.data.read(struct.calcsize(layout)))

    def skip(self, size: int) -> None:
        self.data.seek(size, 1)

    def varint(self) -> int:
        value = shift = 0
        while True:
            (byte,) = self.numbers(">B")
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def length(self) -> int:
        """Of a compact array or text; of none, 0."""
        return max(self.varint() - 1, 0)

    def tags(self) -> None:
        for _ in range(self.varint()):
            self.varint()
            self.skip(self.varint())
