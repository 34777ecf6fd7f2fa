"""The mass-rejection breaker: a broken schema looks like bad input from everybody."""

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from schema.outcomes import Outcome
from writer.decisions import Decision
from writer.failures import Halt

LEAST_AUTHORS = 3


@dataclass
class MassRejection:
    """Counts what the database refuses, across transactions, and halts the lane when it is too much:

    - `limit` refusals in a row, without a command saved between them; or
    - more than half of the last 2 x `limit` commands that came so far as to the database.

    Nobody alone can bring that about: an author counts for a third of it at most, and at least
    three must be concerned. Rejections that the writer decides itself, by a rule of the site or a
    version, say nothing of the schema and do not count.
    """

    limit: int
    row: list[UUID] = field(default_factory=list)
    last: deque[UUID | None] = field(default_factory=deque)
    """The author of each refused command; None for one that was saved."""

    def note(self, decisions: Sequence[Decision]) -> None:
        """Raises `Halt` inside the transaction that would have told the last of them."""
        for decision in decisions:
            if decision.sqlstate is not None and not decision.record.command.system:
                self._refused(decision)
            elif decision.outcome is Outcome.SAVED:
                self.row.clear()
                self._remember(None)

    def _refused(self, decision: Decision) -> None:
        author = decision.record.command.author.id
        self.row.append(author)
        self._remember(author)
        if self._too_many(self.row, self.limit):
            said = f"the database refused {len(self.row)} commands in a row"
        elif len(self.last) == 2 * self.limit and self._too_many(self.last, self.limit + 1):
            said = f"the database refused most of the last {len(self.last)} commands"
        else:
            return
        raise Halt(
            f"{said}, the last with SQLSTATE {decision.sqlstate}: "
            "they were not told; look, then resume the lane"
        )

    def _remember(self, author: UUID | None) -> None:
        self.last.append(author)
        if len(self.last) > 2 * self.limit:
            self.last.popleft()

    def _too_many(self, authors: Iterable[UUID | None], many: int) -> bool:
        each = Counter(author for author in authors if author is not None)
        third = -(-many // LEAST_AUTHORS)
        return len(each) >= LEAST_AUTHORS and sum(min(n, third) for n in each.values()) >= many
