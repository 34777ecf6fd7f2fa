"""Hands outcomes and notices to the open streams of their authors, and replays what was missed.

Fed with the outcomes topic in its order, by one listener; no I/O here. Everything happens between
two awaits of one event loop: a stream that begins sees each outcome once, replayed or live.
"""

import asyncio
import uuid
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Self

from frontend_api.event_ring import RING_OUTCOMES, Kept, Ring
from frontend_api.events import NOTICE, Event, event_id, events_of, read_event_id
from frontend_api.problems import ProblemError, fail
from schema.outcomes import Outcome
from schema.strict_json import JsonError, decode

QUEUE_EVENTS: Final = 256
"""Events that may wait in a stream for its reader; with one more it was too slow."""
PROBLEMS: Final = 1000
"""Of how many rejected commands it is known why, without asking PostgreSQL."""


class LogChanged(Exception):
    """What was read before is not what the log has now: it was made anew."""


class Subscription:
    """One stream of an author: `async with` it and iterate.

    It ends when the hub closes, when its reader was too slow (the last event is a `reset` then),
    or by `close()`. Made by `EventHub.subscribe`; holds a place until it is closed.
    """

    def __init__(self, hub: "EventHub", author: uuid.UUID, last_event_id: str | None) -> None:
        self.author = author
        self.last_event_id = last_event_id
        self.position: str | None = None
        """Where a stream without a last id begins: an id to come back with. None if not known."""
        self.after: int | None = None
        """Offsets up to this one were seen. None while it is not decided where the stream begins."""
        self._hub = hub
        self._replay: deque[Kept] = deque()
        self._replayed: deque[Event] = deque()
        self._queue: deque[Event] = deque()
        self._news = asyncio.Event()
        self._ended = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """The next event. May be cancelled: nothing is lost."""
        while True:
            if self._replayed:
                return self._replayed.popleft()
            if self._replay:
                kept = self._replay.popleft()
                id_ = event_id(self._hub.partition_of(self.author), kept.offset)
                self._replayed.extend(events_of(decode(kept.value), id_, self._hub.notice_type))
                continue
            if self._queue:
                return self._queue.popleft()
            if self._ended:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()

    def close(self) -> None:
        """End the stream and give its place back. May be repeated."""
        self._hub.forget(self)
        self.end()

    def end(self, last: Event | None = None) -> None:
        """Nothing more comes but `last`; what waits is dropped, it can be replayed."""
        if self._ended:
            return
        self._ended = True
        for waiting in (self._replay, self._replayed, self._queue):
            waiting.clear()
        if last is not None:
            self._queue.append(last)
        self._news.set()

    def go_on(self, after: int, replay: Iterable[Kept] = ()) -> None:
        """It is decided: first these, then what comes behind the offset."""
        self.after = after
        self._replay.extend(replay)
        self._news.set()

    def give(self, events: Iterable[Event], reset: Event) -> None:
        """Add events; `reset` is the last one if there is no room for them."""
        if self._ended:
            return
        self._queue.extend(events)
        if len(self._queue) > QUEUE_EVENTS:
            self.end(reset)
        self._news.set()


class EventHub:
    """The streams of one process and the latest outcomes.

    `locate(author, partitions)` is the partition that an author's outcomes are in. At most
    `per_author` streams of one author and `most` in all. `notice_type` is what notices are called.
    """

    def __init__(
        self,
        locate: Callable[[uuid.UUID, int], int],
        *,
        per_author: int = 8,
        most: int = 1000,
        notice_type: str | None = None,
    ) -> None:
        self._locate = locate
        self.notice_type = notice_type
        self._problems: OrderedDict[str, Mapping[str, Any]] = OrderedDict()
        self._per_author = per_author
        self._most = most
        self._rings: dict[int, Ring] = {}
        self._ends: Mapping[int, int] = {}
        self._ready = False
        self._closed = False
        self._streams: defaultdict[uuid.UUID, set[Subscription]] = defaultdict(set)
        self._undecided: list[Subscription] = []
        self.count = 0

    # -- for those who read streams -------------------------------------------------------------

    def subscribe(self, author: uuid.UUID, last_event_id: str | None) -> Subscription:
        """A stream of an author's events, behind the one with `last_event_id` if it is given.

        If what follows that id cannot be told any more, the stream begins with a `reset`. Raises
        `ProblemError`: 429 for too many streams of this author, 503 for too many in all.
        """
        if len(self._streams.get(author, ())) >= self._per_author:
            error = fail("rate_limited", f"At most {self._per_author} event streams at once.")
            raise ProblemError(error.problem, {"Retry-After": "10"})
        if self.count >= self._most:
            raise fail("overloaded", "There are too many event streams; try again.")
        made = Subscription(self, author, last_event_id)
        if self._closed:
            made.end()
            return made
        self._streams[author].add(made)
        self.count += 1
        if not self._ready or not self._decide(made, None):
            self._undecided.append(made)
        return made

    def forget(self, subscription: Subscription) -> None:
        """Give the place of a stream back."""
        streams = self._streams.get(subscription.author, set())
        if subscription in streams:
            streams.remove(subscription)
            self.count -= 1
            if not streams:
                del self._streams[subscription.author]
        if subscription in self._undecided:
            self._undecided.remove(subscription)

    def position(self, author: uuid.UUID) -> str | None:
        """An id to begin behind: all that was told before is seen by a read that starts now."""
        if not self._ready:
            return None
        partition = self.partition_of(author)
        return event_id(partition, self._rings[partition].next - 1)

    def partition_of(self, author: uuid.UUID) -> int:
        return self._locate(author, len(self._rings))

    def problem_of(self, command: uuid.UUID) -> Mapping[str, Any] | None:
        """Why a command was rejected, if that was lately. Ask for an author's own commands only."""
        return self._problems.get(str(command))

    def close(self) -> None:
        """End all streams; those that are asked for from now on end at once."""
        self._closed = True
        for streams in list(self._streams.values()):
            for stream in list(streams):
                stream.end()

    # -- for the listener -----------------------------------------------------------------------

    def places(self, begins: Mapping[int, int], ends: Mapping[int, int]) -> dict[int, int]:
        """Where to read each partition from, now that the log has these begins and ends."""
        self._ends = dict(ends)
        if self._rings.keys() != ends.keys():
            self._rings.clear()  # authors may be in another partition than before
        share = max(1, RING_OUTCOMES // len(ends))
        broken = []
        for partition, end in ends.items():
            begin, ring = begins[partition], self._rings.get(partition)
            if ring is None or not begin <= ring.next <= end:
                start = max(begin, end - share)
                self._rings[partition] = Ring(start, share, len(ends))
                broken.append(partition)
        for partition in broken:
            self._reset(partition)
        self._look_if_ready()
        # One before what comes next, if there is one: it tells whether this is still the same log.
        return {p: max(begins[p], ring.start, ring.next - 1) for p, ring in self._rings.items()}

    def take(self, partition: int, offset: int, value: bytes) -> dict[str, Any] | None:
        """One message of the outcomes topic. Returns it if it is news.

        Raises `LogChanged`; then ask for the `places` again.
        """
        ring = self._rings[partition]
        if offset < ring.next:
            if not ring.agrees(offset, value):
                ring.clear(-1)  # in front of any log: `places` begins anew
                raise LogChanged
            return None
        if offset > ring.next:
            ring.clear(offset)
            self._reset(partition)
        ring.next = offset + 1
        outcome, author = _read(value)
        if outcome is not None and author is not None:
            if ring.add(Kept(offset, author, value, _known_by(outcome))):
                self._note_problem(outcome)
                self._hand_out(partition, offset, author, outcome)
            else:
                outcome = None
        self._look_if_ready()
        return outcome

    @property
    def asks_for_ends(self) -> bool:
        """A stream came with an id that we have not seen yet: only the log's ends can tell."""
        return self._ready and bool(self._undecided)

    def ends(self, ends: Mapping[int, int]) -> None:
        """The log's ends as they are now."""
        self._settle(ends)

    def _note_problem(self, outcome: Mapping[str, Any]) -> None:
        rejected = outcome.get("outcome") == Outcome.REJECTED and "command_id" in outcome
        if rejected and isinstance(outcome.get("problem"), Mapping):
            self._problems[str(outcome["command_id"])] = outcome["problem"]
            if len(self._problems) > PROBLEMS:
                self._problems.popitem(last=False)

    # -- inside ---------------------------------------------------------------------------------

    def _look_if_ready(self) -> None:
        """Ready when all that was in the log at the beginning has been read."""
        if not self._ready and all(self._rings[p].next >= end for p, end in self._ends.items()):
            self._ready = True
            self._settle(None)

    def _settle(self, ends: Mapping[int, int] | None) -> None:
        undecided, self._undecided = self._undecided, []
        for stream in undecided:
            if not self._decide(stream, ends, late=True):
                self._undecided.append(stream)

    def _decide(
        self, stream: Subscription, ends: Mapping[int, int] | None, *, late: bool = False
    ) -> bool:
        """Where the stream begins. False if it cannot be told without the log's ends."""
        partition = self.partition_of(stream.author)
        ring = self._rings[partition]
        if stream.last_event_id is None and not late:
            stream.position = event_id(partition, ring.next - 1)
            stream.go_on(ring.next - 1)
            return True
        at = read_event_id(stream.last_event_id) if stream.last_event_id is not None else None
        if at is None or at[0] != partition or at[1] < ring.start - 1:
            self._begin_with_reset(stream, partition)
        elif at[1] < ring.next:
            stream.go_on(at[1], ring.behind(at[1], stream.author))
        elif ends is None:
            return False
        elif at[1] < ends[partition]:
            stream.go_on(at[1])
        else:
            self._begin_with_reset(stream, partition)
        return True

    def _begin_with_reset(self, stream: Subscription, partition: int) -> None:
        stream.go_on(-1)
        reset = self._reset_event(partition)
        stream.give([reset], reset)

    def _hand_out(
        self, partition: int, offset: int, author: uuid.UUID, outcome: dict[str, Any]
    ) -> None:
        streams = self._streams.get(author)
        if not streams:
            return
        events = events_of(outcome, event_id(partition, offset), self.notice_type)
        if not events:
            return
        for stream in list(streams):
            if stream.after is not None and offset > stream.after:
                stream.give(events, self._reset_event(partition))

    def _reset(self, partition: int) -> None:
        """What follows is not connected with what went before."""
        reset = self._reset_event(partition)
        for author, streams in list(self._streams.items()):
            if self.partition_of(author) != partition:
                continue
            for stream in list(streams):
                if stream.after is not None:
                    stream.after = -1
                    stream.give([reset], reset)

    def _reset_event(self, partition: int) -> Event:
        return Event(event_id(partition, self._rings[partition].next - 1), "reset", {})


def _known_by(message: Mapping[str, Any]) -> tuple[Any, ...]:
    """What the same message has in common when it is published again: all of them may be."""
    if message.get("kind") == NOTICE:
        return (NOTICE, str(message.get("command")))
    return (message.get("lane"), message.get("seq"), message.get("command_id"))


def _read(value: bytes) -> tuple[dict[str, Any] | None, uuid.UUID | None]:
    try:
        outcome = decode(value)
    except JsonError:
        return None, None
    if not isinstance(outcome, dict):
        return None, None
    try:
        of = outcome["author"] if outcome.get("kind") == NOTICE else outcome["author_id"]
        return outcome, uuid.UUID(of)
    except (KeyError, ValueError, TypeError, AttributeError):
        return outcome, None
