"""Points at which a test may kill this very process, to see what survives.

`AFTERWRITE_FAILPOINTS` holds `NAME=PATH[,NAME=PATH…]`. When the process reaches a named point and
the file exists, it removes the file and kills itself with SIGKILL: once, and as abruptly as a power
cut. Without the variable, reaching a point costs one dictionary look-up.
"""

import os
import signal
from pathlib import Path
from typing import Literal

Point = Literal[
    "api_before_overlay",
    "api_after_overlay",
    "api_after_publish",
    "writer_after_fetch",
    "writer_after_position",
    "writer_before_commit",
    "writer_after_commit",
    "writer_before_watermark",
    "mail_before_data",
    "mail_after_data",
    "operator_before_replay_id",
    "operator_after_replay_id",
    "operator_after_publish",
    "operator_before_close",
    "operator_after_close",
    "notifier_before_remember",
    "notifier_after_remember",
    "notifier_after_overlay",
    "notifier_after_publish",
    "notifier_after_confirm",
    "notifier_before_told",
    "notifier_before_alert",
]


def _armed() -> dict[str, Path]:
    pairs = (part.partition("=") for part in os.environ.get("AFTERWRITE_FAILPOINTS", "").split(","))
    return {name: Path(path) for name, sep, path in pairs if sep}


_POINTS = _armed()


def reach(point: Point) -> None:
    """Die here if a test says so."""
    path = _POINTS.get(point)
    if path is None:
        return
    try:
        path.unlink()
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
