"""Which command is it that fails again and again? Pure counting, by position.

A writer that dies, or whose database refuses for a reason that may pass (see `counted` in the table of
failures), tries again. After three times at one position commands are tried one at a time, each in a
transaction of its own: then the position tells which one it is. After five times that one is parked.

If commands of three authors were parked and nothing was saved between, it is hardly the commands: a
table is locked, the server is drowned. Then the next one, of yet another author, is tried twenty times
before it is parked. Nobody alone can make the lane wait so, and it never waits for ever.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from schema.outcomes import Outcome
from writer.decisions import Decision

ALONE_AFTER = 3
PARK_AFTER = 5
MANY_AUTHORS = 3
PARK_AT_LAST_AFTER = 20


@dataclass
class Suspicion:
    """What a writer knows of one lane's failures; deaths are counted in the lane itself."""

    position: int = -1
    failures: int = 0
    parked: set[UUID] = field(default_factory=set)
    """Authors whose commands were parked since one was saved."""

    def at(self, position: int, deaths: int) -> int:
        """How often the command at this position has failed."""
        return max(self.failures if position == self.position else 0, deaths)

    def failed(self, started: int, position: int, deaths: int) -> None:
        """A batch that was started at one position has failed at another, or at the same."""
        before = self.at(started, deaths)
        if position == started:
            self.failures = before + 1
        else:  # those before it went through one by one: now it is known which one it is
            self.failures = ALONE_AFTER
        self.position = position

    def must_park(self, trouble: int, author: UUID) -> bool:
        """Whether the one at the position, of this author, is set aside, so that the others go on."""
        everybody = len(self.parked) >= MANY_AUTHORS and author not in self.parked
        return trouble >= (PARK_AT_LAST_AFTER if everybody else PARK_AFTER)

    def note(self, decisions: Sequence[Decision]) -> None:
        """Whether anything can be saved."""
        if any(d.outcome is Outcome.SAVED for d in decisions):
            self.parked.clear()
