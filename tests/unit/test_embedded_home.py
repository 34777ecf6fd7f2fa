"""The state folder: one stack at a time, nothing secret readable by others, ports that stay."""

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.embedded import leftovers, ports
from deploy.embedded.files import write_atomically
from deploy.embedded.home import Home, known_settings
from deploy.embedded.process import started_at
from deploy.errors import NotReachable, Trouble, UsageTrouble

pytestmark = pytest.mark.unit


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.open()
    return home


def test_a_second_stack_on_the_folder_is_refused_and_told_who_has_it(home: Home) -> None:
    with pytest.raises(Trouble, match=f"process {os.getpid()}") as refused:
        Home(home.path).open()
    assert "AFTERWRITE_HOME" in refused.value.todo


def test_the_folder_can_be_opened_again_after_close(home: Home) -> None:
    home.close()
    Home(home.path).open()


def test_the_lock_ends_with_its_process(tmp_path: Path) -> None:
    code = f"from deploy.embedded.home import Home; Home({str(tmp_path)!r}).open()"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert not Home(tmp_path).running()
    Home(tmp_path).open()


def test_running_is_seen_from_another_object_and_leaves_the_lock_alone(home: Home) -> None:
    other = Home(home.path)
    assert other.running()
    home.close()
    assert not other.running()
    home.open()


def test_a_file_in_the_place_of_the_folder_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageTrouble):
        Home(tmp_path / "file").open()


def test_secrets_differ_stay_and_are_for_the_owner_only(home: Home) -> None:
    first, second = home.secret("one"), home.secret("two")
    assert first != second
    assert len(first) >= 32
    assert Home(home.path).secret("one") == first
    assert stat.S_IMODE((home.path / "secrets.json").stat().st_mode) == 0o600


def test_a_port_stays_while_it_is_free_and_gives_way_when_it_is_not(home: Home) -> None:
    port = home.port("redis")
    assert home.port("redis") == port
    assert home.port("kafka") != port
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        assert not ports.is_free(port)
        moved = home.port("redis")
    assert moved != port
    assert home.port("redis") == moved


def test_data_of_another_version_are_refused_with_a_way_out(home: Home) -> None:
    home.stamp("kafka", "Kafka 4.3", "do this")
    home.stamp("kafka", "Kafka 4.3", "do this")
    with pytest.raises(Trouble, match=r"was made by Kafka 4\.3, and this is Kafka 4\.4") as refused:
        home.stamp("kafka", "Kafka 4.4", "do this")
    assert refused.value.todo == "do this"


def test_a_folder_of_a_later_layout_is_refused(home: Home) -> None:
    home.write("version.json", {"layout": 99})
    home.close()
    with pytest.raises(Trouble, match="layout 99"):
        Home(home.path).open()


def test_the_environment_is_there_only_while_a_stack_runs(home: Home) -> None:
    with pytest.raises(NotReachable):
        home.environment()
    home.write("environment.json", {"AFTERWRITE_URL": "http://x"})
    assert Home(home.path).environment() == {"AFTERWRITE_URL": "http://x"}
    home.close()
    with pytest.raises(NotReachable, match="No stack is running") as refused:
        home.environment()
    assert refused.value.exit_code == 3


def test_processes_of_a_stack_that_is_gone_are_stopped(home: Home) -> None:
    process = {
        "name": "redis", "pid": 1, "state": "running", "restarts": 0, "port": 1, "since": 1.0
    }  # fmt: skip
    home.write("stack.json", {"pid": 1, "processes": [process]})
    assert home.processes()[0]["state"] == "running"
    home.close()
    assert home.processes()[0]["state"] == "stopped"
    assert home.processes()[0]["pid"] is None


def test_settings_are_the_stacks_overridden_by_the_environment(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AFTERWRITE_HOME", str(home.path))
    home.write("environment.json", {"AFTERWRITE_LANES": "1", "AFTERWRITE_REDIS_URL": "b"})
    known = known_settings({"AFTERWRITE_LANES": "2", "PATH": "/bin"})
    assert known == {"AFTERWRITE_LANES": "2", "AFTERWRITE_REDIS_URL": "b"}


def test_an_environment_that_names_a_server_is_not_mixed_with_the_stack(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AFTERWRITE_HOME", str(home.path))
    home.write("environment.json", {"AFTERWRITE_REDIS_URL": "b"})
    mine = {"AFTERWRITE_KAFKA_BOOTSTRAP": "mine"}
    assert known_settings(mine) == mine


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "\ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_a_killed_stack_left_is_ended_but_no_stranger(home: Home) -> None:
    command = [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE) as left,
        subprocess.Popen(command, stdout=subprocess.PIPE) as stranger,
    ):
        since = started_at(left.pid)
        assert since is not None
        home.write(
            "stack.json",
            {
                "processes": [
                    {"name": "redis", "pid": left.pid, "since": since},
                    {"name": "kafka", "pid": stranger.pid, "since": since - 1},
                ]
            },
        )
        assert leftovers.end(home, patience_s=5) == ["redis"]
        left.wait(5)
        assert stranger.poll() is None
        stranger.kill()
