"""Ends what a stack that was killed may have left, before the next one starts on the same data.

The kernel has asked those processes to stop when their supervisor died, but PostgreSQL and Kafka
take a moment. A process counts as ours only if its start time is the recorded one: a process id
alone may have been given to a stranger since.
"""

import contextlib
import os
import signal
import time

from deploy.embedded.home import Home, ProcessState
from deploy.embedded.process import started_at

PATIENCE_S = 15.0


def end(home: Home, patience_s: float = PATIENCE_S) -> list[str]:
    """Waits for them and, after `patience_s`, kills them. Returns the names of those still alive
    when it began. The home must be locked by us, so nobody else starts any."""
    known: list[ProcessState] = home.read("stack.json").get("processes", [])
    alive = [process for process in known if _is_ours(process)]
    for process in alive:
        _send(process, signal.SIGCONT)
        _send(process, signal.SIGINT if process["name"] == "postgres" else signal.SIGTERM)
    deadline = time.monotonic() + patience_s
    waiting = alive
    while waiting and time.monotonic() < deadline:
        time.sleep(0.05)  # they are not our children: there is no event to wait for
        waiting = [process for process in waiting if _is_ours(process)]
    for process in waiting:
        _send(process, signal.SIGKILL)
    return [process["name"] for process in alive]


def _is_ours(process: ProcessState) -> bool:
    pid, since = process["pid"], process["since"]
    return pid is not None and since is not None and started_at(pid) == since


def _send(process: ProcessState, number: int) -> None:
    if process["pid"] is not None and _is_ours(process):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process["pid"], number)
