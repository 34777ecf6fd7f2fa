"""The hub of events: what a stream is told, when it begins, breaks, comes back, or is too slow."""

import asyncio
import json
import uuid
from typing import Any

import pytest

from frontend_api.event_hub import QUEUE_EVENTS, EventHub, LogChanged, Subscription
from frontend_api.event_ring import RING_OUTCOMES
from frontend_api.events import Event, events_of, read_event_id, written
from frontend_api.problems import ProblemError

pytestmark = pytest.mark.unit

ADA, BEN = uuid.uuid4(), uuid.uuid4()


def message(author: uuid.UUID, seq: int, outcome: str = "saved", **more: Any) -> bytes:
    value = {
        "command_id": str(uuid.UUID(int=seq)),
        "author_id": str(author),
        "outcome": outcome,
        "lane": 0,
        "offset": seq,
        "seq": seq,
        "problem": None,
        "duplicate_of": None,
    }
    return json.dumps(value | more).encode()


def ready_hub(begin: int = 0, **limits: Any) -> EventHub:
    hub = EventHub(lambda author, partitions: 0, **limits)
    hub.places({0: begin}, {0: begin})
    return hub


def fill(hub: EventHub, upto: int, author: uuid.UUID = ADA, start: int = 0) -> None:
    for n in range(start, upto):
        hub.take(0, n, message(author, n))


async def waiting(stream: Subscription) -> list[Event]:
    """Everything that the stream has to say now."""
    found = []
    try:
        while True:
            async with asyncio.timeout(0.02):
                found.append(await anext(stream))
    except (TimeoutError, StopAsyncIteration):
        return found


def ids(events: list[Event]) -> list[str | None]:
    return [e.id if e.name != "reset" else f"reset {e.id}" for e in events]


async def test_a_stream_carries_what_is_its_authors_and_nothing_else() -> None:
    hub = ready_hub()
    ada, ben = hub.subscribe(ADA, None), hub.subscribe(BEN, None)
    fill(hub, 2, ADA)
    fill(hub, 3, BEN, start=2)
    assert ids(await waiting(ada)) == ["0-0", "0-1"]
    assert ids(await waiting(ben)) == ["0-2"]


async def test_nothing_is_missing_or_doubled_between_replay_and_live() -> None:
    hub = ready_hub()
    fill(hub, 6)
    stream = hub.subscribe(ADA, "0-2")
    fill(hub, 9, start=6)
    assert ids(await waiting(stream)) == [f"0-{n}" for n in range(3, 9)]


async def test_a_replay_leaves_out_what_is_not_the_authors() -> None:
    hub = ready_hub()
    for n in range(6):
        hub.take(0, n, message(BEN if n % 2 else ADA, n))
    assert ids(await waiting(hub.subscribe(ADA, "0-0"))) == ["0-2", "0-4"]


async def test_a_stream_without_an_id_says_where_it_begins() -> None:
    hub = ready_hub()
    assert hub.subscribe(ADA, None).position == "0-"
    fill(hub, 3)
    stream = hub.subscribe(ADA, None)
    assert stream.position == "0-2"
    assert await waiting(stream) == []
    assert ids(await waiting(hub.subscribe(ADA, "0-"))) == ["0-0", "0-1", "0-2"]


@pytest.mark.parametrize(
    "id_", ["", "0", "0-x", "-1", "0--1", "1-2", "0-99", "0-9999999999999999999", "٠-1", "0-4"]
)
async def test_an_id_that_means_nothing_here_begins_with_a_reset(id_: str) -> None:
    hub = ready_hub(begin=6)
    fill(hub, 9, start=6)
    stream = hub.subscribe(ADA, id_)
    if hub.asks_for_ends:
        hub.ends({0: 9})
    assert ids(await waiting(stream)) == ["reset 0-8"]
    fill(hub, 10, start=9)
    assert ids(await waiting(stream)) == ["0-9"]


async def test_an_id_of_another_process_that_is_ahead_is_waited_for() -> None:
    hub = ready_hub()
    fill(hub, 3)
    stream = hub.subscribe(ADA, "0-4")
    assert hub.asks_for_ends
    hub.ends({0: 6})
    assert not hub.asks_for_ends
    fill(hub, 6, start=3)
    assert ids(await waiting(stream)) == ["0-5"]


async def test_an_id_that_was_ahead_is_replayed_when_we_have_come_past_it() -> None:
    hub = ready_hub()
    stream = hub.subscribe(ADA, "0-1")
    fill(hub, 4)
    hub.ends({0: 4})
    assert ids(await waiting(stream)) == ["0-2", "0-3"]


async def test_who_comes_before_the_ring_is_filled_is_served_when_it_is() -> None:
    hub = EventHub(lambda author, partitions: 0)
    with_id, without = hub.subscribe(ADA, "0-1"), hub.subscribe(ADA, None)
    gone = hub.subscribe(ADA, None)
    gone.close()
    assert hub.position(ADA) is None
    hub.places({0: 0}, {0: 3})
    fill(hub, 2)
    assert await waiting(with_id) == []
    fill(hub, 3, start=2)
    assert ids(await waiting(with_id)) == ["0-2"]
    assert ids(await waiting(without)) == ["reset 0-2"]
    assert hub.position(ADA) == "0-2"


async def test_the_ring_is_bounded_and_what_is_older_is_a_reset() -> None:
    hub = ready_hub()
    fill(hub, RING_OUTCOMES + 10)
    assert ids(await waiting(hub.subscribe(ADA, "0-8"))) == [f"reset 0-{RING_OUTCOMES + 9}"]
    replayed = await waiting(hub.subscribe(ADA, "0-9"))
    assert len(replayed) == RING_OUTCOMES
    assert replayed[0].id == "0-10"


async def test_the_ring_is_bounded_in_bytes() -> None:
    hub = ready_hub()
    for n in range(40):
        hub.take(0, n, message(ADA, n, problem={"detail": "x" * 1_000_000}))
    assert len(await waiting(hub.subscribe(ADA, "0-30"))) == 9
    assert ids(await waiting(hub.subscribe(ADA, "0-5"))) == ["reset 0-39"]


async def test_what_the_writer_publishes_again_is_told_once() -> None:
    hub = ready_hub()
    stream = hub.subscribe(ADA, None)
    told = [hub.take(0, at, message(ADA, seq)) for at, seq in enumerate([0, 1, 2, 1, 2, 3])]
    assert [t is None for t in told] == [False, False, False, True, True, False]
    assert ids(await waiting(stream)) == ["0-0", "0-1", "0-2", "0-5"]


async def test_a_slow_reader_gets_a_reset_and_the_end() -> None:
    hub = ready_hub()
    slow, other = hub.subscribe(ADA, None), hub.subscribe(BEN, None)
    fill(hub, QUEUE_EVENTS)
    assert len(await waiting(slow)) == QUEUE_EVENTS
    fill(hub, 2 * QUEUE_EVENTS + 5, start=QUEUE_EVENTS)
    assert ids(await waiting(slow)) == [f"reset 0-{2 * QUEUE_EVENTS}"]
    with pytest.raises(StopAsyncIteration):
        await anext(slow)
    assert await waiting(other) == []


async def test_a_log_that_was_cut_or_made_anew_resets() -> None:
    hub = ready_hub()
    stream = hub.subscribe(ADA, None)
    fill(hub, 5)
    await waiting(stream)
    assert hub.places({0: 0}, {0: 9}) == {0: 4}  # Kafka is back: go on, and look again at the last
    assert hub.take(0, 4, message(ADA, 4)) is None
    fill(hub, 7, start=5)
    assert ids(await waiting(stream)) == ["0-5", "0-6"]

    assert hub.places({0: 20}, {0: 30}) == {0: 20}  # retention has cut what we have not read
    assert ids(await waiting(stream)) == ["reset 0-19"]
    fill(hub, 21, start=20)
    assert ids(await waiting(stream)) == ["0-20"]

    assert hub.places({0: 0}, {0: 2}) == {0: 0}  # shorter than it was
    assert ids(await waiting(stream)) == ["reset 0-"]

    fill(hub, 2)
    await waiting(stream)
    assert hub.places({0: 0}, {0: 9}) == {0: 1}
    with pytest.raises(LogChanged):  # longer, but another
        hub.take(0, 1, message(ADA, 77))
    assert hub.places({0: 0}, {0: 9}) == {0: 0}
    assert ids(await waiting(stream)) == ["reset 0-"]


async def test_a_gap_in_what_is_read_resets() -> None:
    hub = ready_hub()
    stream = hub.subscribe(ADA, None)
    hub.take(0, 5, message(ADA, 5))
    assert ids(await waiting(stream)) == ["reset 0-4", "0-5"]


async def test_more_partitions_reset() -> None:
    hub = EventHub(lambda author, partitions: (author.int & 1) % partitions)
    author = uuid.UUID(int=1)
    hub.places({0: 0}, {0: 0})
    stream = hub.subscribe(author, None)
    assert stream.position == "0-"
    hub.places({0: 0, 1: 0}, {0: 0, 1: 0})
    assert ids(await waiting(stream)) == ["reset 1-"]
    hub.take(1, 0, message(author, 0))
    assert ids(await waiting(stream)) == ["1-0"]


async def test_streams_are_limited_and_give_their_place_back() -> None:
    hub = ready_hub(per_author=2, most=3)
    first, second = hub.subscribe(ADA, None), hub.subscribe(ADA, None)
    with pytest.raises(ProblemError) as refused:
        hub.subscribe(ADA, None)
    assert refused.value.problem.status == 429
    assert "Retry-After" in refused.value.headers
    hub.subscribe(BEN, None)
    with pytest.raises(ProblemError) as refused:
        hub.subscribe(BEN, None)
    assert refused.value.problem.code == "overloaded"
    async with first:
        pass
    second.close()
    second.close()
    assert hub.count == 1
    hub.subscribe(ADA, None)


async def test_closing_ends_all_streams_at_once() -> None:
    hub = ready_hub()
    fill(hub, 3)
    open_ = [hub.subscribe(ADA, "0-0"), hub.subscribe(BEN, None)]
    hub.close()
    for stream in [*open_, hub.subscribe(ADA, None)]:
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


async def test_bytes_that_are_no_outcome_are_passed_over() -> None:
    hub = ready_hub()
    stream = hub.subscribe(ADA, None)
    for n, value in enumerate([b"", b"{", b"[]", b'{"author_id": 3}', message(ADA, 4, "odd")]):
        hub.take(0, n, value)
    hub.take(0, 5, message(ADA, 5))
    assert ids(await waiting(stream)) == ["0-5"]


def test_events_of_each_outcome() -> None:
    def told(outcome: str, **more: Any) -> list[Event]:
        return events_of(json.loads(message(ADA, 7, outcome, **more)), "0-7")

    command = str(uuid.UUID(int=7))
    rows = [{"type": "post", "id": "x", "op": "create", "version": 1}]
    saved = {"command": command, "state": "saved", "outcome": "saved", "rows": rows}
    assert told("saved", rows=rows) == [Event("0-7", "command.saved", saved)]
    assert told("saved")[0].data["rows"] == []  # of a writer that did not say
    assert [e.name for e in told("parked")] == ["command.parked"]

    rejected, notice = told("rejected", problem={"code": "forbidden"}, notice="n")
    assert (rejected.name, rejected.id) == ("command.rejected", None)
    assert rejected.data["problem"] == {"code": "forbidden"}
    assert (notice.name, notice.id) == ("notice", "0-7")
    assert notice.data == {"notice": "n", "command": command}

    assert told("duplicate", duplicate_of="other")[0].data["duplicate_of"] == "other"
    assert told("duplicate", duplicate_of=command) == []
    assert told("dead") == []
    assert events_of({}, "0-1") == []


def test_an_event_cannot_break_out_of_its_lines() -> None:
    text = written(Event("0-1", "notice", {"detail": "a\ndata: b\r\n\n\u2028\ud800"}))
    assert text.count(b"\n") == 4
    assert b"\r" not in text
    assert text.endswith(b"\n\n")


def test_ids_are_read_strictly() -> None:
    assert read_event_id("3-17") == (3, 17)
    assert read_event_id("3-") == (3, -1)
    assert [read_event_id(t) for t in ("", "3", "a-1", "1-a", "1-2-3", " 1-2", "1-2\n")] == [
        None
    ] * 7
