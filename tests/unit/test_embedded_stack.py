"""What `afterwrite up` checks before it starts anything, and the program around it."""

import errno
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from deploy import cli
from deploy.doctor import examine
from deploy.embedded import stack
from deploy.embedded.home import Home
from deploy.embedded.postgres import ROLES, ROLES_SQL, sql_steps
from deploy.errors import NotReachable, Trouble, UsageTrouble, trouble_of

pytestmark = pytest.mark.unit


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    home.open()
    return home


@pytest.mark.parametrize("port", ["http", "-1", "65536", "8000.5"])
def test_a_port_that_is_none_is_a_usage_error(home: Home, port: str) -> None:
    with pytest.raises(UsageTrouble, match="PORT is"):
        stack._where(home, {"PORT": port})


def test_port_0_takes_a_free_one_and_keeps_it(home: Home) -> None:
    first = stack._where(home, {"PORT": "0"})
    assert stack._where(home, {"PORT": "0"}) == first


def test_a_taken_port_and_a_foreign_address_are_told_apart(home: Home) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(Trouble, match="is taken by another program"):
            stack._where(home, {"PORT": str(taken.getsockname()[1])})
    with pytest.raises(UsageTrouble, match=r"AFTERWRITE_HOST is '192\.0\.2\.1'"):
        stack._where(home, {"PORT": "8000", "AFTERWRITE_HOST": "192.0.2.1"})


def test_a_low_port_is_not_called_taken() -> None:
    told = stack._no_such_door("127.0.0.1", 80, PermissionError(errno.EACCES, "denied"))
    assert "may not listen on port 80" in told.what


def test_listening_everywhere_is_reached_by_the_loopback() -> None:
    assert stack.Where("0.0.0.0", 8000).url == "http://127.0.0.1:8000"


def test_too_little_room_is_said_before_it_hurts(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(home.path)._replace(free=10_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(Trouble, match="has 10 MB left") as told:
        stack._check_room(home)
    assert "AFTERWRITE_HOME" in told.value.todo


def test_errors_of_the_disk_come_with_advice() -> None:
    full = trouble_of(OSError(errno.ENOSPC, "No space left on device", "/data/x"))
    assert full is not None
    assert full.what == "The disk that holds /data/x is full."
    closed = trouble_of(PermissionError(errno.EACCES, "Permission denied", "/data/x"))
    assert closed is not None
    assert "/data/x" in closed.what
    assert trouble_of(OSError(errno.EIO, "I/O error")) is None


@pytest.mark.parametrize(("trouble", "code"), [(Trouble, 1), (UsageTrouble, 2), (NotReachable, 3)])
def test_trouble_is_two_lines_and_an_exit_code(
    capsys: pytest.CaptureFixture[str], trouble: type[Trouble], code: int
) -> None:
    assert cli.report(trouble("It is broken.", "Mend it.")) == code
    assert capsys.readouterr().err == "afterwrite: It is broken.\n  → Mend it.\n"


def run(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deploy.cli", *words],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("command", ["up", "env", "logs", "doctor"])
def test_every_command_has_help_with_an_example(command: str) -> None:
    answer = run(command, "--help")
    assert answer.returncode == 0
    assert "Example:" in answer.stdout


def test_the_list_of_commands_imports_none_of_them() -> None:
    code = "import sys; sys.argv[1:] = ['--help']\nfrom deploy import cli\ntry: cli.main()\n"
    code += "finally: print([m for m in sys.modules if m.startswith('deploy.')])"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert "Start everything on this machine" in answer
    assert "deploy.commands." not in answer
    assert "deploy.embedded" not in answer


def test_logs_of_a_process_that_has_none(tmp_path: Path) -> None:
    answer = run("logs", "writer", AFTERWRITE_HOME=str(tmp_path))
    assert answer.returncode == 2
    assert "Nothing has been started there yet" in answer.stderr


def test_the_roles_file_has_its_steps_and_all_roles() -> None:
    steps = sql_steps(ROLES_SQL.read_text(encoding="utf-8"))
    assert list(steps) == ["roles", "database", "access"]
    assert all(f"CREATE ROLE {role} LOGIN" in steps["roles"] for role in ROLES)


async def test_a_check_that_breaks_is_a_finding_and_hides_no_other() -> None:
    found = await examine({}, ["no.such:check", "deploy.doctor.services:check_api"])
    assert [finding.state for finding in found] == ["bad"]
    assert "the check itself failed" in found[0].text


async def test_the_doctor_names_missing_settings_and_shows_no_secret() -> None:
    settings = {"AFTERWRITE_SIGNING_KEYS": "k1:hush", "AFTERWRITE_LANSE": "1"}
    found = await examine(settings, ["deploy.doctor.settings:check"])
    text = " ".join(f"{finding.text} {finding.todo}" for finding in found)
    assert "AFTERWRITE_FRONTEND_DATABASE_URL: Field required" in text
    assert "AFTERWRITE_SIGNING_KEYS: " in text
    assert "nothing reads AFTERWRITE_LANSE" in text
    assert "hush" not in text


@pytest.mark.parametrize(
    ("urls", "state", "text"),
    [
        (None, "warning", "nobody is told"),
        ("json://127.0.0.1:9/s3cret,mailto://h?to=a@b.de", "ok", "json-1, mailto-2"),
        ("json://s3cret:s3cret:x/", "bad", "number 1 (json://)"),
    ],
)
async def test_the_doctor_names_the_channels_of_alerts(
    urls: str | None, state: str, text: str
) -> None:
    settings = {} if urls is None else {"AFTERWRITE_ALERT_URLS": urls}
    [found] = await examine(settings, ["deploy.doctor.alerts:check_channels"])
    assert found.state == state
    assert text in found.text
    assert "s3cret" not in found.text
