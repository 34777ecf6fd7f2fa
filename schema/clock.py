"""What time it is, for everything that decides by time: waits of days, horizons, reminders.

`AFTERWRITE_CLOCK` may hold the path of a file with a number of seconds, which is added to the time of
the machine: so a test lets five days pass in a moment, in the real processes. The file is read
whenever somebody asks. Without the variable, asking costs nothing more.
"""

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

Clock = Callable[[], datetime]
"""Gives the present time, with its zone."""

_PATH: Final = os.environ.get("AFTERWRITE_CLOCK")


def now() -> datetime:
    """The present time, in UTC."""
    return datetime.now(UTC) + (shift_of(Path(_PATH)) if _PATH else timedelta())


def shift_of(path: Path) -> timedelta:
    """What the file adds; nothing while it is not there or is being written."""
    try:
        return timedelta(seconds=float(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return timedelta()
