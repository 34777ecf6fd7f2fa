"""What a real Kafka tells of its disk; and, on a small disk, that a front end stops in time."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from deploy.embedded.services import EmbeddedServices
from frontend_api.app import create_app
from frontend_api.authentication import mint_token
from schema.settings import FrontendSettings, OwnerSettings
from tests.installation import SECRET, Installation, eventually_async
from tests.services import Embedded, Services
from writer.disk import broker_disks
from writer.failures import LogUnavailable
from writer.topic_admin import migrate_topics

pytestmark = [pytest.mark.integration, pytest.mark.once, pytest.mark.timeout(120)]

DISK_BYTES = 64 << 20


async def test_what_kafka_tells_is_what_the_machine_tells(services: Services) -> None:
    if not isinstance(services, Embedded):
        pytest.skip("SKIPPED FOR REAL: the disk of a Kafka that is not ours cannot be looked at")
    (disk,) = await broker_disks(services.kafka_bootstrap, 5)
    here = os.statvfs(services.kafka_folder)
    assert disk.broker == 1
    assert disk.total_bytes == pytest.approx(here.f_blocks * here.f_frsize, rel=0.05)
    assert disk.usable_bytes == pytest.approx(here.f_bavail * here.f_frsize, rel=0.05)


async def test_without_kafka_nothing_is_known_in_time() -> None:
    with pytest.raises(LogUnavailable):
        await broker_disks("127.0.0.1:1", 2)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MiB, for one Kafka."""
    folder = tmp_path / "small"
    (folder / "kafka").mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder / "kafka")]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("SKIPPED FOR REAL: no file system may be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder / "kafka")], check=True)


@pytest.fixture
def small_kafka(small_disk: Path) -> Iterator[str]:
    """A Kafka on it; the address to reach it by."""
    with EmbeddedServices(small_disk, only=["kafka"]) as kafka:
        yield kafka.environment()["AFTERWRITE_KAFKA_BOOTSTRAP"]


async def test_a_front_end_refuses_in_time_and_takes_changes_again_by_itself(
    installation: Installation,
    small_disk: Path,
    small_kafka: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("frontend_api.disk_watch._EVERY_S", 0.3)
    values = installation.environment() | {
        "AFTERWRITE_KAFKA_BOOTSTRAP": small_kafka,
        "AFTERWRITE_DISK_SHED_PERCENT": "80",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    await migrate_topics(OwnerSettings(), 1, 1, lambda line: None)
    async with _running(create_app(FrontendSettings())) as client:

        async def post() -> httpx2.Response:
            topic = {"title": "A title", "body": "A body"}
            return await client.post("/v1/topics", json=topic)

        async def answered(status: int, code: str | None = None) -> None:
            found: list[Any] = []

            async def there() -> bool:
                answer = await post()
                found[:] = [answer.status_code, answer.json().get("code")]
                return found == [status, code]

            await eventually_async(there, 30, f"{status} {code}")

        async def degraded(expected: list[str]) -> None:
            found: list[str] = []

            async def there() -> bool:
                found[:] = (await client.get("/readyz")).json()["degraded"]
                return found == expected

            await eventually_async(there, 10, f"{expected} to be degraded")

        await answered(202)
        assert 0 < await _used(client) < 0.75
        filler = small_disk / "kafka" / "filler"
        filler.write_bytes(bytes(_to_use(small_disk, 0.85)))
        await answered(503, "log_full")
        assert 0.8 < await _used(client) < 0.9
        await degraded(["disk"])
        assert (await client.get("/v1/topics")).status_code == 200
        os.truncate(filler, filler.stat().st_size - _less(small_disk, 0.77))
        await asyncio.sleep(1)  # several looks: it is below the limit, but not by five points
        assert (await post()).json()["code"] == "log_full"
        assert await _used(client) < 0.8
        filler.unlink()
        await answered(202)
        await degraded([])


def _used_bytes(small_disk: Path) -> int:
    here = os.statvfs(small_disk / "kafka")
    return (here.f_blocks - here.f_bavail) * here.f_frsize


def _to_use(small_disk: Path, ratio: float) -> int:
    return int(DISK_BYTES * ratio) - _used_bytes(small_disk)


def _less(small_disk: Path, ratio: float) -> int:
    return _used_bytes(small_disk) - int(DISK_BYTES * ratio)


async def _used(client: httpx2.AsyncClient) -> float:
    text = (await client.get("/metrics")).text
    name = 'afterwrite_disk_used_ratio{broker="1"} '
    return float(next(n for n in text.splitlines() if n.startswith(name))[len(name) :])


@asynccontextmanager
async def _running(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    headers = {"Authorization": f"Bearer {mint_token(SECRET, 'ada', ())}"}
    transport = httpx2.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://test", headers=headers) as client,
    ):
        yield client
