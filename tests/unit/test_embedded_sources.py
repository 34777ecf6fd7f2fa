"""Which server is taken: a URL, then the wheel, then the system's; and words when there is none."""

from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.embedded import sources
from deploy.embedded.sources import POSTGRES_URLS, external
from deploy.errors import Trouble, UsageTrouble

pytestmark = pytest.mark.unit

Program = Callable[[str, str], Path]


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Makes a program that tells a version."""

    def make(name: str, answer: str) -> Path:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\necho '{answer}'\n")
        path.chmod(0o755)
        return path

    return make


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path | None, list[Path]], None]:
    """Decides what the machine has."""

    def has(wheel: Path | None, system: list[Path]) -> None:
        monkeypatch.setattr(sources, "_in_package", lambda package, path: wheel)
        monkeypatch.setattr(sources, "_on_path", lambda name: system)
        monkeypatch.setattr(sources, "_debian_postgres", lambda: system)

    return has


Machine = Callable[[Path | None, list[Path]], None]


def test_a_url_is_an_existing_server() -> None:
    assert external("redis", {"AFTERWRITE_REDIS_URL": "redis://x"}) == {
        "AFTERWRITE_REDIS_URL": "redis://x"
    }
    assert external("redis", {}) == {}
    assert external("kafka", {"AFTERWRITE_KAFKA_BOOTSTRAP": ""}) == {}


def test_postgres_wants_all_three_urls_or_none() -> None:
    urls = dict.fromkeys(POSTGRES_URLS, "postgresql://x")
    assert external("postgres", urls) == urls
    del urls["AFTERWRITE_WRITER_DATABASE_URL"]
    with pytest.raises(UsageTrouble, match="AFTERWRITE_WRITER_DATABASE_URL is not"):
        external("postgres", urls)


def test_the_wheel_comes_before_the_system(program: Program, machine: Machine) -> None:
    wheel = program("wheel", "Server v=9.1.2 (valkey)")
    system = program("system", "Redis server v=7.0.15 sha=0")
    machine(wheel, [system])
    assert sources.redis({}).describe() == "Valkey 9.1.2 from its wheel"
    machine(None, [system])
    assert sources.redis({}).describe() == f"Redis 7.0.15 of the system, {system}"


def test_a_source_can_be_forced(program: Program, machine: Machine) -> None:
    wheel, system = program("wheel", "Valkey v=9.1.2"), program("system", "Redis v=7.0.15")
    machine(wheel, [system])
    assert sources.redis({"AFTERWRITE_REDIS_SOURCE": "system"}).version == (7, 0, 15)
    with pytest.raises(UsageTrouble, match="'docker'"):
        sources.redis({"AFTERWRITE_REDIS_SOURCE": "docker"})
    machine(None, [system])
    with pytest.raises(Trouble, match="its wheel is not installed"):
        sources.redis({"AFTERWRITE_REDIS_SOURCE": "wheel"})


@pytest.mark.parametrize(
    ("find", "ways_out"),
    [
        (sources.postgres, ["apt install postgresql", "AFTERWRITE_DATABASE_URL"]),
        (sources.redis, ["apt install redis-server", "AFTERWRITE_REDIS_URL"]),
        (sources.java, ["openjdk-17", "AFTERWRITE_KAFKA_BOOTSTRAP"]),
    ],
)
def test_an_unsupported_machine_is_told_which_part_and_the_way_out(
    machine: Machine, find: Callable[[dict[str, str]], object], ways_out: list[str]
) -> None:
    machine(None, [])
    with pytest.raises(Trouble, match="there is no wheel for it, and the system has none") as told:
        find({})
    for way_out in ways_out:
        assert way_out in told.value.todo


@pytest.mark.parametrize(
    ("answer", "version"),
    [
        ("openjdk 25.0.2 2026-01-20 LTS", (25, 0, 2)),
        ("openjdk 17.0.15 2025-04-15", (17, 0, 15)),
        ("java 21 2023-09-19 LTS", (21,)),
    ],
)
def test_javas_ways_to_tell_its_version(
    program: Program, machine: Machine, answer: str, version: tuple[int, ...]
) -> None:
    machine(program("java", answer), [])
    assert sources.java({}).version == version


def test_a_java_that_is_too_old_is_refused(program: Program, machine: Machine) -> None:
    machine(None, [program("java", "openjdk 11.0.2 2019-01-15")])
    with pytest.raises(Trouble, match="is Java 11; Kafka needs 17"):
        sources.java({})


def test_a_program_that_does_not_run_here_is_said(tmp_path: Path, machine: Machine) -> None:
    broken = tmp_path / "postgres"
    broken.write_text("for another machine")
    broken.chmod(0o755)
    machine(broken, [])
    with pytest.raises(Trouble, match="does not run here"):
        sources.postgres({})
