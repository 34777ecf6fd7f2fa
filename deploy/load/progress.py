"""Progress of a load: a bar on a terminal, a line now and then elsewhere. Both on standard error."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

_EVERY_S = 5.0


class Showing(Protocol):
    """One stage at a time: `stage` begins it, `advance` counts, `say` puts a line beside it."""

    def stage(self, name: str, total: int) -> None: ...

    def advance(self) -> None: ...

    def say(self, text: str) -> None: ...


class Lines:
    """Plain lines: the beginning and the end of a stage, and every five seconds between."""

    def __init__(self) -> None:
        self._name, self._total, self._done = "", 0, 0
        self._last = time.monotonic()

    def stage(self, name: str, total: int) -> None:
        self._name, self._total, self._done = name, total, 0
        self._show()

    def advance(self) -> None:
        self._done += 1
        if self._done == self._total or time.monotonic() - self._last >= _EVERY_S:
            self._show()

    def say(self, text: str) -> None:
        sys.stderr.write(f"load: {text}\n")

    def _show(self) -> None:
        self._last = time.monotonic()
        self.say(f"{self._name}: {self._done:,} of {self._total:,}")


class _Bar:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=None)

    def stage(self, name: str, total: int) -> None:
        self._progress.reset(self._task, total=total, description=name)

    def advance(self) -> None:
        self._progress.advance(self._task)

    def say(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False)


@contextmanager
def showing() -> Iterator[Showing]:
    """A bar if standard error is a terminal, else lines."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Lines()
        return
    columns = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        yield _Bar(progress)
