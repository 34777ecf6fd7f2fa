"""What `afterwrite up` says while it works: a line an event, and one that counts a download."""

import contextlib
import sys
import time

WIDTH = 9


def say(text: str) -> None:
    """One line on standard output. A reader that has gone away (`| head`) is no reason to stop."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def row(name: str, text: str) -> str:
    return f"  {name:<{WIDTH}} {text}"


class Download:
    """Counts a download: in place on a terminal, else with a line each quarter."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._shown = 0.0
        self._quarter = -1
        self._terminal = sys.stdout.isatty()

    def __call__(self, done: int, total: int) -> None:
        """Megabytes are millions of bytes."""
        text = row(self._name, f"{done / 1e6:.0f} of {total / 1e6:.0f} MB fetched")
        if self._terminal:
            if time.monotonic() - self._shown > 0.1 or done == total:
                self._shown = time.monotonic()
                with contextlib.suppress(OSError):
                    sys.stdout.write(f"\r{text}" + ("\n" if done == total else ""))
                    sys.stdout.flush()
        elif done * 4 // max(total, 1) > self._quarter:
            self._quarter = done * 4 // max(total, 1)
            say(text)
