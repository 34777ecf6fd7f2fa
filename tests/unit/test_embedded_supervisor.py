"""Children: started, restarted with growing pauses, stopped in order, never orphaned."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from deploy.embedded import launch as launcher
from deploy.embedded import supervisor as module
from deploy.embedded.children import NOT_FOR_ALL, environment_of
from deploy.embedded.home import Home
from deploy.embedded.process import Launch, Process, started_at
from deploy.embedded.supervisor import Backoff, Child, Supervisor
from deploy.errors import Trouble

pytestmark = pytest.mark.unit

SLEEPER = "import time; print('up', flush=True); time.sleep(60)"
STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); " + SLEEPER


def run(code: str, stop_s: float = 5) -> Launch:
    return Launch((sys.executable, "-c", code), stop_s=stop_s)


def child(home: Home, name: str, code: str = SLEEPER, stop_s: float = 5) -> Child:
    log = home.logs / f"{name}.log"
    return Child(name, lambda: run(code, stop_s), lambda: "up" in log.read_text())


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    home.open()
    return home


@pytest.fixture
async def supervisor(home: Home, said: list[str]) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(home, said.append, lambda: Backoff(first_s=0.01))
    yield supervisor
    await supervisor.stop([])


def pid_of(home: Home, name: str) -> int:
    pid = next(state["pid"] for state in home.processes() if state["name"] == name)
    assert pid is not None
    return pid


async def until(condition: Callable[[], bool]) -> None:
    await asyncio.to_thread(wait_until, condition)


def wait_until(condition: Callable[[], bool], timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


def test_pauses_double_up_to_the_limit_and_begin_again_after_a_calm_run() -> None:
    backoff = Backoff(first_s=1, limit_s=5, calm_s=60)
    assert [backoff.pause_after(0) for _ in range(5)] == [1, 2, 4, 5, 5]
    assert backoff.pause_after(61) == 1
    assert backoff.pause_after(3) == 2


async def test_a_child_that_dies_is_restarted_and_it_is_said(
    supervisor: Supervisor, home: Home, said: list[str]
) -> None:
    await supervisor.start([child(home, "redis")])
    first = pid_of(home, "redis")
    os.kill(first, signal.SIGKILL)
    await until(lambda: home.processes()[0]["pid"] not in (None, first))
    assert home.processes()[0]["restarts"] == 1
    assert any(line.startswith("redis ended (SIGKILL); restarting it") for line in said)


async def test_a_child_that_never_starts_is_given_up_with_its_last_words(
    supervisor: Supervisor, home: Home
) -> None:
    with pytest.raises(Trouble, match="kafka does not start") as told:
        await supervisor.start([child(home, "kafka", "raise SystemExit('no such port')")])
    assert "no such port" in told.value.what
    assert "kafka.log" in told.value.todo


async def test_one_that_never_becomes_ready_is_given_up(
    supervisor: Supervisor, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "READY_S", 0.2)
    never = Child("api", lambda: run(SLEEPER), lambda: False)
    with pytest.raises(Trouble, match="api was not ready"):
        await supervisor.start([never])


async def test_a_full_disk_keeps_nobody_from_restarting_and_stopping(
    home: Home, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = Supervisor(home, said.append, lambda: Backoff(first_s=0.01))
    await supervisor.start([child(home, "redis")])
    first = pid_of(home, "redis")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(home, "write", full)
    os.kill(first, signal.SIGKILL)
    await until(lambda: sum("redis is ready" in line for line in said) == 2)
    await supervisor.stop([])
    assert any("No space left on device" in line for line in said)


async def test_they_stop_in_the_order_asked_for(home: Home, said: list[str]) -> None:
    supervisor = Supervisor(home, said.append)
    order = home.path / "order"
    codes = {
        name: "import signal, sys\n"
        f"def bye(*_): open({str(order)!r}, 'a').write('{name} '); sys.exit()\n"
        f"signal.signal(15, bye)\n{SLEEPER}"
        for name in ("postgres", "redis", "api")
    }
    await supervisor.start([child(home, name, code) for name, code in codes.items()])
    await supervisor.stop(["api", "redis", "postgres"])
    assert order.read_text().split() == ["api", "redis", "postgres"]
    assert {state["state"] for state in home.processes()} == {"stopped"}


async def test_one_that_ignores_its_stop_signal_is_killed(home: Home, said: list[str]) -> None:
    supervisor = Supervisor(home, said.append)
    await supervisor.start([child(home, "writer", STUBBORN, stop_s=0.2)])
    await supervisor.stop([])
    assert "writer did not stop in time and was killed" in said


async def test_stopping_wakes_a_halted_child(home: Home, said: list[str]) -> None:
    supervisor = Supervisor(home, said.append)
    await supervisor.start([child(home, "redis")])
    os.kill(pid_of(home, "redis"), signal.SIGSTOP)
    began = time.monotonic()
    await supervisor.stop([])
    assert time.monotonic() - began < 4


async def test_a_child_can_be_stopped_while_it_waits_for_its_restart(
    home: Home, said: list[str]
) -> None:
    supervisor = Supervisor(home, said.append, lambda: Backoff(first_s=60))
    await supervisor.start([child(home, "redis")])
    os.kill(pid_of(home, "redis"), signal.SIGKILL)
    await until(lambda: home.processes()[0]["state"] == "restarting")
    await asyncio.wait_for(supervisor.stop([]), 5)


ORPHANING = """
import sys
from pathlib import Path
from deploy.embedded.process import Launch, Process
process = Process("sleeper", Path(sys.argv[1]))
process.start(Launch((sys.executable, "-c", "import time; time.sleep(60)")))
print(process.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux ties them; others are watched")
def test_no_child_outlives_a_parent_that_was_killed(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ORPHANING, str(tmp_path / "log")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert started_at(pid) is not None
        parent.kill()
    wait_until(lambda: started_at(pid) is None)


WATCHED = """
import subprocess, sys, os
subprocess.Popen([sys.executable, sys.argv[1], "--parent", str(os.getpid()), "--signal", "15",
    "--watch", "yes", "--", sys.executable, "-c",
    "import os, time; print(os.getpid(), flush=True); time.sleep(60)"])
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_where_the_kernel_does_not_tie_them_the_launcher_watches(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WATCHED, launcher.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
        wait_until(lambda: started_at(pid) is None)


async def test_starting_off_the_main_thread_is_refused(tmp_path: Path) -> None:
    process = Process("redis", tmp_path / "log")
    with pytest.raises(RuntimeError, match="main thread"):
        await asyncio.to_thread(process.start, run(SLEEPER))


def test_each_process_gets_only_the_secrets_it_needs() -> None:
    settings = dict.fromkeys(NOT_FOR_ALL, "secret") | {"AFTERWRITE_REDIS_URL": "redis://x"}
    api = environment_of("api", {"PATH": "/bin"}, settings)
    assert set(api) == {
        "PATH", "AFTERWRITE_REDIS_URL", "AFTERWRITE_FRONTEND_DATABASE_URL", "AFTERWRITE_JWT_SECRET",
        "AFTERWRITE_SIGNING_KEYS",
    }  # fmt: skip
    mail = environment_of("mail-worker", {"AFTERWRITE_ALERT_URLS_FILE": "/secret"}, settings)
    assert set(mail) == {"AFTERWRITE_REDIS_URL", "AFTERWRITE_SMTP_URL"}
    notifier = environment_of("notifier", {"AFTERWRITE_ALERT_URLS_FILE": "/secret"}, settings)
    assert {"AFTERWRITE_ALERT_URLS_FILE", "AFTERWRITE_ALERT_SECRET"} <= set(notifier)
    assert "AFTERWRITE_SMTP_URL" not in notifier
    assert "AFTERWRITE_DATABASE_URL" not in environment_of("writer", settings, settings)
