"""Kafka's jars: pinned by coordinate and SHA-256, fetched once, kept for all homes of a user.

`deploy/kafka/jars.lock` has a line a jar: Maven coordinate, size in bytes, SHA-256. `jgo` knows
where Maven coordinates are found; `AFTERWRITE_MAVEN_REPOSITORY` names a mirror to use instead. Every
start checks every jar against the lock, and one that differs is fetched again.
"""

import hashlib
import os
import queue
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from deploy.errors import Trouble, trouble_of

LOCK = Path(__file__).parent.parent / "kafka" / "jars.lock"
WORKERS = 8
TRIES = 3
TIMEOUT_S = 30

Report = Callable[[int, int], None]
"""Called with bytes done and bytes in all, from several threads but never at once."""


@dataclass(frozen=True)
class Jar:
    """One line of the lock."""

    group: str
    artifact: str
    version: str
    size_bytes: int
    sha256: str

    @property
    def coordinate(self) -> str:
        return f"{self.group}:{self.artifact}:{self.version}"

    @property
    def file_name(self) -> str:
        return f"{self.artifact}-{self.version}.jar"

    def is_at(self, path: Path) -> bool:
        """Whether the file there is this jar, byte for byte."""
        try:
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == self.sha256
        except OSError:
            return False


Fetch = Callable[[Jar, Path], Path]
"""Fetches a jar into an empty folder of its own and returns where it lies there."""


def read_lock(path: Path = LOCK) -> list[Jar]:
    """The pinned jars, in the order of the class path."""
    jars = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            coordinate, size, digest = line.split()
            group, artifact, version = coordinate.split(":")
            jars.append(Jar(group, artifact, version, int(size), digest))
    return jars


def kafka_version(jars: list[Jar]) -> str:
    """The version of the broker among them."""
    return next(jar.version for jar in jars if jar.artifact.startswith("kafka_"))


def cache_folder(fallback: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """Where the user keeps caches, or `fallback` where that cannot be written."""
    try:
        base = environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        folder = Path(base) / "afterwrite"
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except (OSError, RuntimeError):
        fallback.mkdir(parents=True, exist_ok=True)
        return fallback


def fetch_with_jgo(jar: Jar, folder: Path) -> Path:
    """Raises `OSError` (the network's errors are such) or `RuntimeError` (not found there)."""
    from jgo.maven import MavenContext  # slow to import, and rarely needed

    mirror = os.environ.get("AFTERWRITE_MAVEN_REPOSITORY")
    context = MavenContext(
        repo_cache=folder,
        remote_repos={"mirror": mirror.rstrip("/")} if mirror else None,
        timeout=TIMEOUT_S,
    )
    component = context.project(jar.group, jar.artifact).at_version(jar.version)
    return Path(component.artifact().resolve())


class Jars:
    """The pinned jars in a cache folder."""

    def __init__(self, folder: Path, jars: list[Jar], fetch: Fetch = fetch_with_jgo) -> None:
        self.folder = folder
        self.jars = jars
        self._fetch = fetch

    def path(self, jar: Jar) -> Path:
        return self.folder / jar.file_name

    def class_path(self) -> list[Path]:
        return [self.path(jar) for jar in self.jars]

    def missing(self) -> list[Jar]:
        """Those that are not there, or there with other bytes."""
        with ThreadPoolExecutor(WORKERS) as pool:
            found = pool.map(lambda jar: jar.is_at(self.path(jar)), self.jars)
            return [jar for jar, good in zip(self.jars, found, strict=True) if not good]

    def ensure(self, report: Report = lambda done, total: None) -> int:
        """Fetches what is missing; returns how many that were. Raises `Trouble`.

        Safe when several processes do it at once: a jar takes its place by a rename.
        """
        missing = self.missing()
        if not missing:
            return 0
        self.folder.mkdir(parents=True, exist_ok=True)
        counter = _Counter(sum(jar.size_bytes for jar in missing), report)
        self._get_all(missing, counter)
        return len(missing)

    def _get_all(self, missing: list[Jar], counter: "_Counter") -> None:
        """Raises what the first failing one raised; the others are left to themselves.

        Daemon threads and not a pool, so that Ctrl-C need not wait for the network.
        """
        waiting: queue.SimpleQueue[Jar] = queue.SimpleQueue()
        results: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
        for jar in missing:
            waiting.put(jar)

        def work() -> None:
            while not waiting.empty():
                try:
                    self._get(waiting.get_nowait(), counter)
                except queue.Empty:
                    return
                except Exception as error:  # noqa: BLE001 (raised below, in the caller's thread)
                    results.put(error)
                else:
                    results.put(None)

        for _ in range(min(WORKERS, len(missing))):
            threading.Thread(target=work, name="fetch-jar", daemon=True).start()
        for _ in missing:
            error = results.get()
            if error is not None:
                raise error

    def _get(self, jar: Jar, counter: "_Counter") -> None:
        for attempt in range(1, TRIES + 1):
            try:
                self._get_once(jar)
            except (OSError, RuntimeError) as error:
                # A local one (no space, say) comes with advice; trying again would not help.
                local = trouble_of(error) if isinstance(error, OSError) else None
                if local is not None:
                    raise local from error
                if attempt == TRIES:
                    raise _not_fetched(jar, error) from error
            else:
                counter.add(jar.size_bytes)
                return

    def _get_once(self, jar: Jar) -> None:
        own = Path(tempfile.mkdtemp(prefix=".fetch-", dir=self.folder))
        try:
            fetched = self._fetch(jar, own)
            if not jar.is_at(fetched):
                raise RuntimeError("what came is not the pinned file (SHA-256 differs)")
            fetched.replace(self.path(jar))
        finally:
            shutil.rmtree(own, ignore_errors=True)


class _Counter:
    def __init__(self, total: int, report: Report) -> None:
        self._total = total
        self._report = report
        self._done = 0
        self._lock = threading.Lock()
        report(0, total)

    def add(self, count: int) -> None:
        with self._lock:
            self._done += count
            self._report(self._done, self._total)


def _not_fetched(jar: Jar, error: Exception) -> Trouble:
    reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    return Trouble(
        f"Kafka's jars are not here yet, and {jar.coordinate} could not be fetched: {reason}",
        "The first start needs the network (behind a proxy: HTTPS_PROXY; a Maven mirror: "
        "AFTERWRITE_MAVEN_REPOSITORY). Or set AFTERWRITE_KAFKA_BOOTSTRAP to an existing Kafka.",
    )
