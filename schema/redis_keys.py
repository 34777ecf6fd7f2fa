"""Redis keys: pure functions, each with its meaning and lifetime.

Redis holds nothing that Kafka and PostgreSQL cannot rebuild. All keys of one author share the hash
tag `{author id}`, so that a Redis Cluster keeps them together and one script can change them at once.
In keys of an author, ids are written short (`short_id`): of a small entry they are a good part.
"""

import functools
import hashlib
import uuid
from dataclasses import dataclass
from typing import Final

SHARED: Final = uuid.UUID(int=0)
"""Whose overlay holds what everyone may see while it is pending: nobody's, so the nil UUID's.

It is one overlay under one tag, not one for each stream: a list of roots, such as all topics, belongs
to no stream, and so a reader would have to look at all of them. Thus it costs a reader one small read.
The price is one hash slot, and so one node of a cluster, for what is pending and visible to everyone.
"""


ID_CHARS: Final = 26
"""Characters of a short id."""
_DIGITS: Final = "0123456789abcdefghijklmnopqrstuv"
_PAIRS: Final = [high + low for high in _DIGITS for low in _DIGITS]


@functools.lru_cache(maxsize=16_384)
def short_id(value: uuid.UUID) -> str:
    """The id in base 32, in the same order as the ids themselves."""
    number = value.int
    return "".join([_PAIRS[number >> shift & 1023] for shift in range(120, -1, -10)])


@functools.lru_cache(maxsize=16_384)
def long_id(text: str) -> uuid.UUID:
    """The id that was shortened. Raises ValueError."""
    return uuid.UUID(int=int(text, 32))


@dataclass(frozen=True)
class RedisKeys:
    """Key names under one prefix."""

    prefix: str

    def base(self, owner: uuid.UUID) -> str:
        """What all keys of one overlay begin with. Its owner is an author, or `SHARED`."""
        return f"{self.prefix}:overlay:{{{short_id(owner)}}}:"

    def entries(self, author: uuid.UUID) -> str:
        """Hash: command id → what was commanded; `command id:s` → what became of it so far.

        A pending entry has no lifetime: its outcome removes it. A settled one is swept after the
        grace period.
        """
        return f"{self.base(author)}entries"

    def index(self, owner: uuid.UUID) -> str:
        """Sorted set without scores: where to find the entries by row, list and counter.

        Lives as long as they do. What is found under `row`, `list` and `count` are parts of it.
        """
        return f"{self.base(owner)}index"

    def row(self, author: uuid.UUID, type_: str, row_id: uuid.UUID) -> str:
        """Part of the index: `command id` of each of the author's commands that touches this row."""
        return f"{self.base(author)}row:{type_}:{short_id(row_id)}"

    def list(self, author: uuid.UUID, name: str, parent: uuid.UUID | None) -> str:
        """Part of the index: `row id:command id` of each of the author's commands in this list.

        In the order of row ids, so that a page reads only its own range.
        """
        return f"{self.base(author)}list:{name}:{short_id(parent) if parent is not None else ''}"

    def count(self, author: uuid.UUID, type_: str, row_id: uuid.UUID) -> str:
        """Part of the index: `column:delta:command id`, what commands add to counters of a row.

        In the shared overlay `column:delta:author:command id`.
        """
        return f"{self.base(author)}count:{type_}:{short_id(row_id)}"

    def idempotency(self, author: uuid.UUID, key: str) -> str:
        """Claim of an Idempotency-Key (JSON); lives `AFTERWRITE_IDEMPOTENCY_TTL_S`."""
        digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
        return f"{self.prefix}:idempotency:{{{short_id(author)}}}:{digest}"

    def rate(self, author: uuid.UUID, minute: int) -> str:
        """Counter of an author's submissions in one minute; lives two minutes."""
        return f"{self.prefix}:rate:{{{short_id(author)}}}:{minute}"

    def stream(self, row_id: uuid.UUID) -> str:
        """Stream of a row that was read lately, so that an edit needs no database; lives a week."""
        return f"{self.prefix}:stream:{{{row_id}}}"

    def sweep(self) -> str:
        """Sorted set: `owner:command,command,…` by the time (ms) at which their settled entries may go.

        A command alone is written as a UUID, of several each as a short id.
        """
        return f"{self.prefix}:sweep"

    def marker(self) -> str:
        """Which Redis server holds the whole overlay (text); set when it has been rebuilt.

        Without it, or if it names another server, Redis has lost its memory. No lifetime.
        """
        return f"{self.prefix}:{{overlay}}:marker"

    def rebuilder(self) -> str:
        """Token of the process that rebuilds the overlay; lives seconds, and is renewed."""
        return f"{self.prefix}:{{overlay}}:rebuilder"

    def cache_values(self, shard: int) -> str:
        """Hash: what PostgreSQL said lately of rows and pages; `bytes` is what they take.

        Lives `AFTERWRITE_READ_CACHE_TTL_S` after the last one was kept.
        """
        return f"{self.prefix}:cache:{{{shard}}}:values"

    def cache_kept(self, shard: int) -> str:
        """Sorted set: the fields of `cache_values` by the time (ms) at which they were kept."""
        return f"{self.prefix}:cache:{{{shard}}}:kept"
