"""One child process: started so that it dies with us, logged to a file, stopped in an orderly way.

Plain `subprocess`, no event loop: tests use it from anywhere. Start processes from the main thread:
Linux ends a child when the *thread* that started it ends.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.embedded import launch as launcher

LOG_LIMIT_BYTES = 20 * 1024 * 1024


@dataclass(frozen=True)
class Launch:
    """How to start a program and how to ask it to stop."""

    argv: tuple[str, ...]
    env: Mapping[str, str] | None = None
    """The whole environment of the program; `None`: ours."""
    cwd: Path | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    orphan_signal: signal.Signals | None = None
    """What the kernel sends when we are gone; `None`: the stop signal."""
    stop_s: float = 20.0
    """Seconds it gets to stop by itself before it is killed."""
    run_as: str = ""
    """See `deploy.embedded.launch`: `userns`, a user id, or nothing."""
    needs: tuple[str, ...] = ()

    def command(self) -> list[str]:
        """The command line with our launcher in front."""
        options = ["--parent", str(os.getpid())]
        options += ["--signal", str(int(self.orphan_signal or self.stop_signal))]
        options += ["--as", self.run_as] if self.run_as else []
        for path in self.needs:
            options += ["--need", path]
        return [sys.executable, "-I", "-S", launcher.__file__, *options, "--", *self.argv]


class Process:
    """A named child process and its log file."""

    def __init__(self, name: str, log: Path) -> None:
        self.name = name
        self.log = log
        self.popen: subprocess.Popen[bytes] | None = None
        self._launch: Launch | None = None

    @property
    def pid(self) -> int | None:
        """Its process id while it lives."""
        return self.popen.pid if self.popen is not None and self.alive() else None

    def alive(self) -> bool:
        return self.popen is not None and self.popen.poll() is None

    @property
    def exit_text(self) -> str:
        """How it ended, for people: `exit code 1`, `SIGKILL`."""
        code = self.popen.poll() if self.popen is not None else None
        if code is None:
            return "not ended"
        if code < 0:
            return signal.Signals(-code).name
        return f"exit code {code}"

    def start(self, launch: Launch) -> None:
        """Starts it in a process group of its own, so that Ctrl-C in a terminal reaches only us."""
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError(f"start {self.name} from the main thread: it ends with its thread")
        if self.log.exists() and self.log.stat().st_size > LOG_LIMIT_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        with self.log.open("ab") as output:
            self.popen = subprocess.Popen(
                launch.command(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=launch.cwd,
                env=launch.env,
                start_new_session=True,
            )
        self._launch = launch

    def signal(self, number: int) -> None:
        """Sends a signal to the process alone. One that has ended gets none."""
        if self.popen is not None and self.alive():
            self.popen.send_signal(number)

    def ask_to_stop(self) -> None:
        """Sends its stop signal; a process that was halted with SIGSTOP is woken for it."""
        if self._launch is not None:
            self.signal(self._launch.stop_signal)
            self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kills its whole process group and waits for it."""
        if self.popen is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()

    def stop(self) -> bool:
        """Stops it; returns `False` if it had to be killed. Blocks for at most its `stop_s`."""
        if self.popen is None or self._launch is None:
            return True
        self.ask_to_stop()
        try:
            self.popen.wait(self._launch.stop_s)
        except subprocess.TimeoutExpired:
            self.kill()
            return False
        return True

    def log_tail(self, lines: int = 8) -> str:
        """The last lines of its log."""
        try:
            size = self.log.stat().st_size
            with self.log.open("rb") as file:
                file.seek(max(0, size - 1024 * lines))
                text = file.read().decode("utf-8", "replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:] if lines else [])


def started_at(pid: int) -> float | None:
    """When process `pid` was started, in clock ticks after boot; `None` if it is gone (or a zombie)
    or the system has no /proc."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text[text.rindex(")") + 2 :].split()
    return None if fields[0] == "Z" else float(fields[19])
