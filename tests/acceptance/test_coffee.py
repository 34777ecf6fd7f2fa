"""A real site's content through the real stack: loaded, compared byte for byte, audited.

While every process of the stack is killed, one at a time.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from deploy.embedded.home import Home
from tests.acceptance.helpers import figure

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.timeout(300),
    pytest.mark.skipif(sys.platform != "linux", reason="`afterwrite up` is tested on Linux"),
]

ROOT = Path(__file__).parents[2]
COFFEE = ROOT / "tests" / "data" / "coffee" / "Posts.xml"
CLEAN = {key: value for key, value in os.environ.items() if not key.startswith("AFTERWRITE_")}
TOPICS, ANSWERS = 225, 327
VICTIMS = ("writer", "api", "postgres", "redis", "kafka")


class Stack:
    """A running `afterwrite up`, and the commands that work on it."""

    def __init__(self, folder: Path) -> None:
        self.home = Home(folder)
        self.environ = CLEAN | {"AFTERWRITE_HOME": str(folder), "PORT": "0"}

    def start(self, *words: str, **pipes: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "deploy.cli", *words],
            cwd=ROOT,
            env=self.environ,
            text=True,
            **pipes,
        )

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        with self.start(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def pid(self, name: str) -> int | None:
        found = next(p for p in self.home.processes() if p["name"] == name)
        return found["pid"] if found["state"] == "running" else None

    def sent(self) -> int:
        """How many rows the load has got accepted so far."""
        files = list((self.home.path / "load").glob("*.jsonl"))
        return files[0].read_text().count('"state": "accepted"') if files else 0


@contextmanager
def stack() -> Iterator[Stack]:
    """In a folder that other users can pass, as a project folder is."""
    with tempfile.TemporaryDirectory(prefix="afterwrite-coffee-") as folder:
        Path(folder).chmod(0o755)
        made = Stack(Path(folder) / "home")
        said = (Path(folder) / "up.log").open("w+")
        with said, made.start("up", stdout=said, stderr=said) as up:
            try:
                log = Path(folder) / "up.log"
                until(lambda: "Ctrl-C stops everything." in log.read_text(), 120, "the stack")
                yield made
            finally:
                up.send_signal(signal.SIGTERM)
                assert up.wait(60) == 0


def until(condition: Callable[[], object], timeout_s: float, what: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s} s for {what}"
        time.sleep(0.02)  # a file and a process say nothing: they have to be asked


def prove(made: Stack, report: dict[str, Any]) -> None:
    """All of the dump is in PostgreSQL, once, byte for byte; ledger and content agree."""
    assert report["saved"] == TOPICS + ANSWERS, report
    assert not report["rejected"], report
    verdict = made.run("load", "verify", str(COFFEE), "--json")
    assert verdict.returncode == 0, verdict.stdout + verdict.stderr
    compared = json.loads(verdict.stdout)
    assert (compared["equal"], compared["topics"], compared["answers"]) == (True, TOPICS, ANSWERS)
    audit = made.run("audit")
    assert audit.returncode == 0, audit.stdout + audit.stderr
    status = made.run("status", "--json")
    assert status.returncode == 0, status.stdout
    state = json.loads(status.stdout)
    assert (state["pending"], state["parked"], state["dead"]) == (0, 0, 0)


def test_a_dump_is_loaded_while_everything_is_killed_in_turn() -> None:
    """Loading it once more changes nothing."""
    with stack() as made:
        words = ("load", "stackexchange", str(COFFEE), "--json", "--in-flight", "2")
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with made.start(*words, **pipes) as load:
            for number, victim in enumerate(VICTIMS):
                enough = 40 + number * 90  # questions at first, answers at last
                until(lambda enough=enough: made.sent() >= enough, 90, f"{enough} rows sent")  # type: ignore[misc]
                pid = made.pid(victim)
                assert pid is not None
                assert load.poll() is None, "the load was over before the kill"
                os.kill(pid, signal.SIGKILL)
                until(lambda v=victim, p=pid: made.pid(v) not in (None, p), 60, victim)  # type: ignore[misc]
                assert load.poll() is None, "the load was over before the restart"
            out, err = load.communicate(timeout=150)
        assert load.returncode == 0, out + err
        restarts = {p["name"]: p["restarts"] for p in made.home.processes()}
        assert restarts == dict.fromkeys(restarts, 0) | dict.fromkeys(VICTIMS, 1)
        report = json.loads(out)
        figure("load_s", round(report["seconds"], 1))
        prove(made, report)
        assert made.run(*words).returncode == 0
        assert made.run("load", "verify", str(COFFEE)).returncode == 0
