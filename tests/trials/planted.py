"""Starts an API process with one bug planted in it, to see that the checker finds it.

python -m tests.trials.planted BUG serve api
"""

import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from frontend_api import looking, reading, row_reading
from frontend_api.overlay import Index, Overlay, OverlayRead
from frontend_api.view import Decisions, Glance


def _plant(owner: Any, name: str, bug: Any) -> Any:
    """Put the bug in the place of what is there, which it returns."""
    healthy = getattr(owner, name)
    setattr(owner, name, bug)
    return healthy


def no_ledger() -> None:
    """The overlay is merged without asking what the snapshot's ledger says of it."""

    async def nothing_is_decided(*_: Any, **__: Any) -> Decisions:
        return Decisions()

    def nothing_was_seen(*_: Any) -> Decisions:
        return Decisions()

    _plant(looking, "decisions_of", nothing_is_decided)
    _plant(Glance, "decisions", nothing_was_seen)


def anothers_overlay() -> None:
    """The overlay is read of whoever wrote last, instead of who asks."""
    last: list[uuid.UUID] = []

    async def remembering(self: Overlay, command: Any, *args: Any, **named: Any) -> Any:
        last[:] = [command.author.id]
        return await put(self, command, *args, **named)

    async def of_the_last(
        self: Overlay, author: uuid.UUID, indexes: Sequence[Index], *args: Any, **named: Any
    ) -> OverlayRead:
        who = last[0] if last else author
        moved = [replace(i, key=i.key.replace(str(author), str(who))) for i in indexes]
        found: OverlayRead = await read(self, who, moved, *args, **named)
        return found

    put = _plant(Overlay, "put", remembering)
    read = _plant(Overlay, "read", of_the_last)


def no_counts() -> None:
    """Counters are shown as PostgreSQL has them."""

    def as_they_are(kind: Any, shown: Any, *_: Any, **__: Any) -> Any:
        return shown

    _plant(reading, "with_counts", as_they_are)
    _plant(row_reading, "with_counts", as_they_are)


def swept_early() -> None:
    """An entry goes as soon as Kafka has confirmed it."""

    async def and_gone(self: Overlay, command: Any, *args: Any, **named: Any) -> bool:
        await self.forget(command.author.id, command.command_id)
        return True

    _plant(Overlay, "confirm", and_gone)


BUGS: Final[Mapping[str, Callable[[], None]]] = {
    "no-ledger": no_ledger,
    "anothers-overlay": anothers_overlay,
    "no-counts": no_counts,
    "swept-early": swept_early,
}


def main(argv: list[str]) -> None:
    BUGS[argv[0]]()
    from deploy.cli import main as afterwrite

    sys.argv = ["afterwrite", *argv[1:]]
    afterwrite()


if __name__ == "__main__":
    main(sys.argv[1:])
