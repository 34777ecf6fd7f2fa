"""Kafka's jars: pinned, checked at each start, mended, and clear words when they cannot be had."""

import errno
import functools
import gc
import hashlib
import http.server
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.embedded import jars as module
from deploy.embedded.jars import LOCK, Jar, Jars, cache_folder, kafka_version, read_lock
from deploy.errors import Trouble

pytestmark = pytest.mark.unit

CONTENT = {"one": b"first jar", "two": b"second jar"}


def pinned() -> list[Jar]:
    return [
        Jar("org.example", name, "1.0", len(data), hashlib.sha256(data).hexdigest())
        for name, data in CONTENT.items()
    ]


class Source:
    """Stands in for the network; may serve wrong bytes or fail a number of times first."""

    def __init__(self, failures: int = 0, error: Exception | None = None) -> None:
        self.asked: list[str] = []
        self.failures = failures
        self.error = error

    def __call__(self, jar: Jar, folder: Path) -> Path:
        self.asked.append(jar.artifact)
        if self.failures:
            self.failures -= 1
            if self.error is not None:
                raise self.error
        file = folder / jar.file_name
        file.write_bytes(b"rubbish" if self.failures else CONTENT[jar.artifact])
        return file


def test_the_lock_names_everything_by_coordinate_and_digest() -> None:
    lock = read_lock()
    assert len(lock) > 40
    assert len({jar.file_name for jar in lock}) == len(lock)
    assert all(re.fullmatch("[0-9a-f]{64}", jar.sha256) for jar in lock)
    assert all(jar.size_bytes > 0 for jar in lock)
    assert "://" not in LOCK.read_text(encoding="utf-8")
    versions = {jar.version for jar in lock if jar.group == "org.apache.kafka"}
    assert versions == {kafka_version(lock)}, "all parts of Kafka have one version"


def test_all_parts_of_the_logging_library_have_one_version() -> None:
    logging = {jar.version for jar in read_lock() if jar.group == "org.apache.logging.log4j"}
    assert len(logging) == 1


def test_only_what_is_missing_is_fetched_and_progress_reaches_the_end(tmp_path: Path) -> None:
    source, seen = Source(), list[tuple[int, int]]()
    jars = Jars(tmp_path / "cache", pinned(), source)
    assert jars.ensure(lambda done, total: seen.append((done, total))) == 2
    total = sum(map(len, CONTENT.values()))
    assert seen[0] == (0, total)
    assert seen[-1] == (total, total)
    assert jars.ensure() == 0
    assert sorted(source.asked) == ["one", "two"]
    assert [path.read_bytes() for path in jars.class_path()] == list(CONTENT.values())
    assert sorted(p.name for p in jars.folder.iterdir()) == ["one-1.0.jar", "two-1.0.jar"]


def test_a_corrupt_file_is_fetched_again(tmp_path: Path) -> None:
    source = Source()
    jars = Jars(tmp_path, pinned(), source)
    jars.ensure()
    jars.class_path()[1].write_bytes(b"second jaR")
    assert [jar.artifact for jar in jars.missing()] == ["two"]
    assert jars.ensure() == 1
    assert not jars.missing()


def test_a_passing_failure_is_tried_again(tmp_path: Path) -> None:
    jars = Jars(tmp_path, pinned()[:1], Source(2, ConnectionError("reset")))
    assert jars.ensure() == 1


def test_bytes_that_are_not_the_pinned_ones_never_take_the_place(tmp_path: Path) -> None:
    jars = Jars(tmp_path, pinned()[:1], Source(99))
    with pytest.raises(Trouble, match="SHA-256 differs"):
        jars.ensure()
    assert list(tmp_path.iterdir()) == []


def test_no_network_says_what_to_do(tmp_path: Path) -> None:
    jars = Jars(tmp_path, pinned(), Source(99, ConnectionError("Name or service not known")))
    with pytest.raises(Trouble, match="could not be fetched: Name or service not known") as told:
        jars.ensure()
    for way_out in ("network", "HTTPS_PROXY", "AFTERWRITE_KAFKA_BOOTSTRAP"):
        assert way_out in told.value.todo


def test_a_full_disk_is_not_called_a_network_error(tmp_path: Path) -> None:
    source = Source(99, OSError(errno.ENOSPC, "No space left on device", "/cache/x"))
    with pytest.raises(Trouble, match="disk that holds /cache/x is full"):
        Jars(tmp_path, pinned()[:1], source).ensure()
    assert source.asked == ["one"], "trying again would not help"


def test_the_cache_follows_xdg_and_falls_back(tmp_path: Path) -> None:
    xdg = {"XDG_CACHE_HOME": str(tmp_path / "xdg")}
    assert cache_folder(tmp_path / "home", xdg) == tmp_path / "xdg" / "afterwrite"
    (tmp_path / "file").write_text("")
    blocked = {"XDG_CACHE_HOME": str(tmp_path / "file")}
    assert cache_folder(tmp_path / "home", blocked) == tmp_path / "home"


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[str]:
    """A Maven repository on this machine; its address."""
    folder = tmp_path / "repository"
    for jar in pinned():
        place = folder / "org" / "example" / jar.artifact / jar.version
        place.mkdir(parents=True)
        (place / jar.file_name).write_bytes(CONTENT[jar.artifact])

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_mirror_can_be_named(
    tmp_path: Path, repository: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AFTERWRITE_MAVEN_REPOSITORY", repository)
    for proxy in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(proxy, raising=False)
    jars = Jars(tmp_path / "cache", pinned())
    assert jars.ensure() == 2
    assert not jars.missing()


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # jgo leaves its connection open
def test_a_jar_that_the_mirror_lacks_is_named(
    tmp_path: Path, repository: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AFTERWRITE_MAVEN_REPOSITORY", repository)
    monkeypatch.setattr(module, "TRIES", 1)
    unknown = Jar("org.example", "three", "1.0", 1, "0" * 64)
    with pytest.raises(Trouble, match=r"org\.example:three:1\.0"):
        Jars(tmp_path / "cache", [unknown]).ensure()
    gc.collect()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_cache_that_cannot_be_written_is_passed_over(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    assert cache_folder(tmp_path / "home", {"XDG_CACHE_HOME": str(closed)}) == tmp_path / "home"
