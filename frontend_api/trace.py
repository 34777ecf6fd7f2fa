"""W3C trace context of the request in work: taken over from the client, or begun here.

This process records no spans of its own, so it hands on what it was given.
"""

import re
import secrets
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from schema.telemetry import in_every_line

_PARENT: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)
_STATE: Final = re.compile(r"[\x20-\x7e\t]{1,512}")


@dataclass(frozen=True)
class Trace:
    """`state` is what the client's own systems added; it means nothing here."""

    parent: str
    state: str | None = None

    @property
    def id(self) -> str:
        return self.parent.split("-")[1]


_current: ContextVar[Trace | None] = ContextVar("trace", default=None)


def current() -> Trace | None:
    """The trace of the request in work, also in what it leaves to be done later."""
    return _current.get()


def begin(parents: Sequence[str] = (), states: Sequence[str] = ()) -> Trace:
    """Take over the trace of these headers; a new one if they are not exactly one valid parent.

    It holds for this task, and every log line of it has the `trace_id`.
    """
    if len(parents) == 1 and _PARENT.fullmatch(parents[0]):
        state = ",".join(states)
        trace = Trace(parents[0], state if _STATE.fullmatch(state) else None)
    else:
        made = secrets.token_hex(24)
        trace = Trace(f"00-{made[:32]}-{made[32:]}-00")
    _current.set(trace)
    in_every_line(trace_id=trace.id)
    return trace
