"""DescribeLogDirs byte for byte, and when a disk is called full."""

from io import BytesIO
from types import SimpleNamespace
from typing import Any

import pytest

from schema.broker_disks import (
    BrokerDisk,
    DescribeLogDirs,
    DisksUnknown,
    LogDirs,
    Room,
    brokers_of,
    disk_of,
)

pytestmark = pytest.mark.unit

_THROTTLE, _OK, _NO_TAGS = b"\0\0\0\7", b"\0\0", b"\0"


def _folder(path: bytes, total: int, usable: int, error: int = 0, topics: bytes = b"\1") -> bytes:
    sizes = total.to_bytes(8, "big", signed=True) + usable.to_bytes(8, "big", signed=True)
    head = error.to_bytes(2, "big", signed=True) + bytes([len(path) + 1]) + path
    return head + topics + sizes + _NO_TAGS


def _answer(*folders: bytes, error: bytes = _OK) -> bytes:
    return _THROTTLE + error + bytes([len(folders) + 1]) + b"".join(folders) + _NO_TAGS


def test_the_request_as_kafka_wants_it() -> None:
    request = DescribeLogDirs().prepare({35: (1, 5)})
    header = request.build_request_header(correlation_id=3, client_id="me").encode()
    assert header == b"\0\x23\0\4\0\0\0\3\0\2me\0"
    assert request.encode() == b"\1\0"  # no topics, no tags
    assert request.parse_response_header(BytesIO(b"\0\0\0\3\0")).correlation_id == 3


@pytest.mark.parametrize("versions", [{}, {35: (0, 3)}, {35: (5, 6)}, {3: (0, 9)}])
def test_a_broker_that_does_not_speak_it(versions: dict[int, tuple[int, int]]) -> None:
    with pytest.raises(DisksUnknown):
        DescribeLogDirs().prepare(versions)


def test_the_sizes_behind_topics_and_unknown_tags() -> None:
    partition = b"\0\0\0\1" + bytes(8) + bytes(8) + b"\0" + b"\1\5\3abc"  # one tag of three bytes
    topics = b"\2" + b"\4top" + b"\3" + partition * 2 + _NO_TAGS
    answer = _answer(_folder(b"/a", 1000, 300, topics=topics), _folder(b"/b" * 40, 2000, 1900))
    assert LogDirs.decode(BytesIO(answer)).sizes == ((1000, 300), (2000, 1900))


def test_a_path_so_long_that_its_length_takes_two_bytes() -> None:
    path = b"p" * 300
    folder = (
        _OK + b"\xad\2" + path + b"\1" + (9).to_bytes(8, "big") + (5).to_bytes(8, "big") + b"\0"
    )
    assert LogDirs.decode(BytesIO(_answer(folder))).sizes == ((9, 5),)


def test_an_answer_that_is_cut_short() -> None:
    whole = _answer(_folder(b"/a", 1000, 300))
    for size in range(len(whole)):
        with pytest.raises(DisksUnknown):
            LogDirs.decode(BytesIO(whole[:size]))


class _Kafka:
    """A client that is answered with these bytes."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self.cluster = SimpleNamespace(
            brokers=lambda: [SimpleNamespace(nodeId=4), SimpleNamespace(nodeId=2)]
        )

    async def send(self, node_id: int, request: Any) -> Any:
        return request.RESPONSE_TYPE.decode(BytesIO(self._answer))


async def test_of_several_folders_the_fullest_counts() -> None:
    offline = _folder(b"/c", 1000, 0, error=56)
    unknown = _folder(b"/d", -1, -1)
    kafka = _Kafka(_answer(_folder(b"/a", 1000, 300), offline, unknown, _folder(b"/b", 9000, 2500)))
    assert brokers_of(kafka) == [2, 4]
    disk = await disk_of(kafka, 4)
    assert disk == BrokerDisk(4, 9000, 2500)
    assert disk.used_ratio == pytest.approx(0.7222, abs=1e-4)


@pytest.mark.parametrize(
    "answer",
    [_answer(), _answer(_folder(b"/a", -1, -1)), _answer(error=b"\0\x1f")],
    ids=["no folder", "unknown", "not authorized"],
)
async def test_a_broker_that_does_not_tell(answer: bytes) -> None:
    with pytest.raises(DisksUnknown):
        await disk_of(_Kafka(answer), 1)


def _used(percent: float) -> BrokerDisk:
    return BrokerDisk(1, 1000, round(1000 - 10 * percent))


def test_full_beyond_the_limit_and_until_five_points_less() -> None:
    room = Room(80)
    seen = []
    for percent in (79, 80, 80.5, 79, 75.5, 75, 79, 81):
        room = room.after([_used(10), _used(percent)])
        seen.append(room.full)
    assert seen == [False, False, True, True, True, False, False, True]


def test_what_nobody_knows_is_not_full() -> None:
    assert not Room(80).after([_used(99)]).after([]).full
