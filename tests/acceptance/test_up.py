"""`afterwrite up`: from an empty folder to a running stack, and what happens when things end.

The services are real. Our own processes are stand-ins here, one page each: what is tested is how they
are started, watched, restarted and stopped. The tests share a home, as a user's starts do.
"""

import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.embedded import postgres, sources
from deploy.embedded.home import Home, ProcessState
from deploy.embedded.process import started_at
from deploy.embedded.services import EmbeddedServices
from deploy.errors import Trouble

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.timeout(180),
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
]
ROOT = Path(__file__).parents[2]
CLEAN = {key: value for key, value in os.environ.items() if not key.startswith("AFTERWRITE_")}
NAMES = ["postgres", "redis", "kafka", "api", "writer", "mailbox", "notifier", "mail-worker"]

STAND_IN = """
import http.server, os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
port = os.environ["AFTERWRITE_" + sys.argv[1]]
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), Page).serve_forever()
"""
UP = f"""
import os, signal, sys
from deploy import cli
from deploy.commands import up
from deploy.embedded import stack
from deploy.embedded.children import Commands
run = stack.run
def with_stand_ins(home, environ):
    if "REAL" in os.environ:
        return run(home, environ)
    stand_in = [sys.executable, "-c", {STAND_IN!r}]
    run(home, environ, Commands(
        [sys.executable, "-c", os.environ.get("MIGRATE", "")],
        [*stand_in, "PORT"], [*stand_in, "METRICS_PORT"],
        [*stand_in, "NOTIFIER_PORT"], [*stand_in, "MAIL_METRICS_PORT"]))
stack.run = with_stand_ins
sys.argv = ["afterwrite", "up", *sys.argv[1:]]
cli.main()
"""


class Up:
    """One `afterwrite up`, its output read as it comes."""

    def __init__(self, home: Path, **environ: str) -> None:
        self.home = Home(home)
        self.output = ""
        self.popen = subprocess.Popen(
            [sys.executable, "-c", UP],
            cwd=ROOT,
            env={"PORT": "0", **CLEAN, "AFTERWRITE_HOME": str(home), **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def until(self, text: str, timeout_s: float = 120) -> str:
        """Reads on until `text` was said; returns all that was said so far."""
        assert self.popen.stdout is not None
        deadline = time.monotonic() + timeout_s
        while text not in self.output:
            left = deadline - time.monotonic()
            readable, _, _ = select.select([self.popen.stdout], [], [], max(left, 0))
            part = os.read(self.popen.stdout.fileno(), 65_536) if readable else b""
            assert part, f"{text!r} was never said: {self.output}"
            self.output += part.decode()
        return self.output

    def end(self, number: int = signal.SIGTERM, timeout_s: float = 60) -> int:
        """Sends a signal and waits; returns the exit code."""
        self.popen.send_signal(number)
        rest, _ = self.popen.communicate(timeout=timeout_s)
        self.output += rest.decode()
        return self.popen.returncode

    def result(self) -> tuple[int, str]:
        """Waits for it to end by itself."""
        rest, _ = self.popen.communicate(timeout=120)
        self.output += rest.decode()
        return self.popen.returncode, self.output

    def process(self, name: str) -> ProcessState:
        return next(state for state in self.home.processes() if state["name"] == name)


@contextmanager
def up(home: Path, **environ: str) -> Iterator[Up]:
    running = Up(home, **environ)
    try:
        yield running
    finally:
        if running.popen.poll() is None:
            running.end()
        assert running.popen.stdout is not None
        running.popen.stdout.close()


def wait_until(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def afterwrite(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deploy.cli", *words],
        cwd=ROOT,
        env={**CLEAN, "AFTERWRITE_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """In a folder that other users can pass, as a project folder is."""
    folder = Path(tempfile.mkdtemp(prefix="afterwrite-up-"))
    folder.chmod(0o755)
    yield folder / "home of a stack"
    shutil.rmtree(folder)


def test_from_an_empty_folder_to_two_curl_lines_and_back(home: Path) -> None:
    with up(home) as stack:
        said = stack.until("Ctrl-C stops everything.")
        for name in NAMES:
            assert f"{name} is ready" in said
        assert "PostgreSQL 18" in said
        assert "Valkey" in said
        assert "Kafka 4" in said
        assert len(re.findall(r"^curl -s .*Authorization: Bearer ", said, re.MULTILINE)) == 2
        assert {p["name"]: p["state"] for p in stack.home.processes()} == dict.fromkeys(
            NAMES, "running"
        )
        pids = [process["pid"] for process in stack.home.processes()]
        assert stack.end() == 0
    assert stack.output.index("Stopping") < stack.output.index("Stopped.")
    assert all(pid is not None and started_at(pid) is None for pid in pids)
    assert {p["state"] for p in stack.home.processes()} == {"stopped"}


def test_ctrl_c_stops_it_with_exit_code_0(home: Path) -> None:
    with up(home) as stack:
        stack.until("Ctrl-C stops everything.")
        assert stack.end(signal.SIGINT) == 0


def test_all_of_our_processes_run_and_end_with_the_stack_and_mail_is_kept(home: Path) -> None:
    """With the real ones, and no server for mail named."""
    with up(home.parent / "real", REAL="yes") as stack:
        assert f"kept, alerts too: {stack.home.path / 'mail'}" in stack.until("Ctrl-C s")
        status = afterwrite(stack.home.path, "status", "--json")
        assert (status.returncode, json.loads(status.stdout)["trouble"]) == (0, [])
        tried = afterwrite(stack.home.path, "alerts", "test")
        assert (tried.returncode, tried.stderr) == (0, "")
        mails = [path.read_text() for path in (stack.home.path / "mail").glob("*.eml")]
        [mail] = [mail for mail in mails if "Subject: [afterwrite] Test: " in mail]
        assert mail.startswith("X-Envelope-To: administrator@localhost")
        pids = [process["pid"] for process in stack.home.processes()]
        assert len(pids) == len(NAMES)
        assert stack.end() == 0
    assert "kill" not in stack.output.partition("once more to kill.")[2]
    assert all(pid is not None and started_at(pid) is None for pid in pids)


def test_ctrl_c_before_it_is_up_stops_it_too(home: Path) -> None:
    with up(home) as stack:
        stack.until("redis is ready")
        assert stack.end(signal.SIGINT) == 0
    assert not stack.home.running()


def test_env_prints_the_settings_of_the_running_stack_only(home: Path) -> None:
    answer = afterwrite(home, "env")
    assert (answer.returncode, answer.stdout) == (3, "")
    assert "No stack is running" in answer.stderr
    with up(home) as stack:
        stack.until("Ctrl-C stops everything.")
        values = json.loads(afterwrite(home, "env", "--json").stdout)
        shell = subprocess.run(
            ["sh", "-c", afterwrite(home, "env").stdout + "env"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        doctor = json.loads(afterwrite(home, "doctor", "--json").stdout)
    assert all(f"{name}={value}" in shell.splitlines() for name, value in values.items())
    for name in (
        "DATABASE_URL", "WRITER_DATABASE_URL", "FRONTEND_DATABASE_URL", "ADMIN_DATABASE_URL",
        "REDIS_URL", "KAFKA_BOOTSTRAP", "URL", "JWT_SECRET", "SIGNING_KEYS",
    ):  # fmt: skip
        assert values[f"AFTERWRITE_{name}"]
    # No migration has run here: grants and topics are for other tests.
    states = {finding["subject"]: finding["state"] for finding in doctor["findings"]}
    assert {states[name] for name in ("redis", "kafka", "api", "settings of writer")} == {"ok"}
    assert len([name for name in states if name.startswith("postgres (")]) == 3


@pytest.mark.parametrize("name", [*NAMES[:5], "notifier"])
def test_a_process_that_is_killed_is_restarted_and_it_is_said(home: Path, name: str) -> None:
    with up(home) as stack:
        stack.until("Ctrl-C stops everything.")
        first = stack.process(name)["pid"]
        assert first is not None
        os.kill(first, signal.SIGKILL)
        stack.until(f"{name} ended (SIGKILL); restarting it")
        wait_until(lambda: stack.process(name)["state"] == "running")
        assert stack.process(name)["restarts"] == 1
        assert stack.process(name)["pid"] != first
        assert stack.end() == 0


def test_a_killed_supervisor_leaves_no_orphan_and_the_next_start_is_clean(home: Path) -> None:
    with up(home) as stack:
        stack.until("Ctrl-C stops everything.")
        pids = [process["pid"] for process in stack.home.processes()]
        assert len(pids) == len(NAMES)
        stack.end(signal.SIGKILL)
        # At once, while the old servers are still on their way out.
        with up(home) as again:
            again.until("Ctrl-C stops everything.")
            wait_until(lambda: not any(pid and started_at(pid) for pid in pids), timeout_s=10)
            assert all(process["restarts"] == 0 for process in again.home.processes())
            assert again.end() == 0


def test_with_parent_it_stops_when_its_caller_is_killed(home: Path) -> None:
    caller = "import subprocess, sys; subprocess.run([sys.executable, *sys.argv[1:]])"
    with subprocess.Popen(
        [sys.executable, "-c", caller, "-c", UP, "--with-parent"],
        cwd=ROOT,
        env={**CLEAN, "AFTERWRITE_HOME": str(home), "PORT": "0"},
        stdout=subprocess.PIPE,
    ) as make:
        assert make.stdout is not None
        assert any(b"Ctrl-C stops everything." in line for line in make.stdout)
        make.kill()
        assert b"Stopped." in make.stdout.read()
    wait_until(lambda: not Home(home).running())


def test_a_second_start_on_the_folder_names_the_first(home: Path) -> None:
    with up(home) as stack:
        stack.until("Ctrl-C stops everything.")
        with up(home) as second:
            code, said = second.result()
        assert code == 1
        assert f"already runs in {home} (process {stack.popen.pid})" in said
        assert stack.popen.poll() is None


def test_a_taken_port_is_said_before_anything_starts(home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with up(home, PORT=str(port)) as stack:
            code, said = stack.result()
    assert code == 1
    assert said.startswith(f"afterwrite: Port {port} of 127.0.0.1 is taken")
    assert f"PORT={port + 1} make up" in said
    assert "Traceback" not in said


def test_a_failing_migration_shows_its_last_words_and_stops_all(home: Path) -> None:
    with up(home, MIGRATE="raise SystemExit('column is gone')") as stack:
        code, said = stack.result()
    assert code == 1
    assert "column is gone" in said
    assert "migrate.log" in said
    assert not stack.home.running()


def test_no_network_at_the_first_start_says_what_to_do(tmp_path: Path) -> None:
    with up(
        tmp_path / "home",
        XDG_CACHE_HOME=str(tmp_path / "cache"),
        AFTERWRITE_MAVEN_REPOSITORY="http://127.0.0.1:1",
    ) as stack:
        code, said = stack.result()
    assert code == 1
    assert "could not be fetched" in said
    assert "The first start needs the network" in said
    assert "Traceback" not in said


def test_data_of_another_postgresql_are_left_alone(tmp_path: Path) -> None:
    data = tmp_path / "postgres" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("12\n")
    with up(tmp_path) as stack:
        code, said = stack.result()
    assert code == 1
    assert "was made by PostgreSQL 12" in said
    assert [path.name for path in data.iterdir()] == ["PG_VERSION"]


def test_existing_servers_are_used_instead(home: Path, tmp_path: Path) -> None:
    with EmbeddedServices(tmp_path / "existing", CLEAN) as existing:
        urls = {name: url for name, url in existing.environment().items() if "URL" in name}
        urls["AFTERWRITE_SMTP_URL"] = "smtp://127.0.0.1:9"
        with up(home, **urls) as stack:
            said = stack.until("Ctrl-C stops everything.")
            assert "existing server, from AFTERWRITE_ADMIN_DATABASE_URL, AFT" in said
            assert [p["name"] for p in stack.home.processes()] == [
                "kafka", "api", "writer", "notifier", "mail-worker"
            ]  # fmt: skip
            values = stack.home.environment()
            assert stack.end() == 0
        assert "AFTERWRITE_ALERT_URLS" not in values
        assert values["AFTERWRITE_REDIS_URL"] == urls["AFTERWRITE_REDIS_URL"]
        assert all(process["state"] == "running" for process in existing.processes())


def test_services_alone_can_be_killed_and_restarted(tmp_path: Path) -> None:
    with EmbeddedServices(tmp_path, CLEAN) as services:
        assert Home(tmp_path).environment() == services.environment()
        services.kill("postgres")
        assert services.processes()[0]["state"] == "stopped"
        services.restart("postgres")
        services.kill("redis", signal.SIGSTOP)
        services.restart("redis")
        assert [p["restarts"] for p in services.processes()] == [1, 1, 0]
    assert not Home(tmp_path).running()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to leave root")
def test_without_user_namespaces_postgresql_runs_as_nobody(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = sources.postgres(CLEAN).path
    if not all(folder.stat().st_mode & 0o001 for folder in program.parents):
        pytest.skip(f"others cannot reach {program}")
    monkeypatch.setattr(postgres, "how_to_leave_root", lambda: "65534")
    with EmbeddedServices(home.parent / "as nobody", CLEAN, only=("postgres",)) as services:
        pid = services.processes()[0]["pid"]
        assert Path(f"/proc/{pid}").stat().st_uid == 65534


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to leave root")
def test_a_folder_that_nobody_can_reach_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "how_to_leave_root", lambda: "65534")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(Trouble, match="user id 65534 cannot reach") as told:
        EmbeddedServices(closed / "home", CLEAN, only=("postgres",)).start()
    assert "Run as an ordinary user" in told.value.todo
