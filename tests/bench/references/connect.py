"""Kafka Connect's programs: the runtime's jars and the Debezium JDBC sink, pinned by SHA-256.

They are fetched once into the user's cache, as the embedded stack's jars are. Only the benchmark needs
them; nothing of Afterwrite does.
"""

import hashlib
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import Final

from deploy.embedded.jars import Jars, cache_folder, fetch_with_jgo, read_lock
from deploy.errors import Trouble

LOCK: Final = Path(__file__).parent / "connect.lock"
GROUP, ARTIFACT, VERSION = "io.debezium", "debezium-connector-jdbc", "3.6.0.Final"
SHA256: Final = "c23af8d416f0f801ffb0271b1a8fd9b5360ff8d66b0dd650e066bb56ecfddc05"
"""Of the archive with the connector and all it needs (classifier `plugin`, `tar.gz`)."""


def runtime(fallback: Path) -> list[Path]:
    """The class path of Kafka Connect 4.3.1. Raises `Trouble` where it cannot be fetched."""
    jars = Jars(cache_folder(fallback) / "connect-4.3.1", read_lock(LOCK), fetch_with_jgo)
    jars.ensure()
    return jars.class_path()


def plugin(fallback: Path) -> Path:
    """The folder with the connector, for `plugin.path`. Raises `Trouble`, too."""
    folder = cache_folder(fallback) / f"{ARTIFACT}-{VERSION}"
    if not folder.exists():
        _unpack(_archive(folder.parent), folder)
    return folder


def _archive(folder: Path) -> Path:
    from jgo.maven import MavenContext  # slow to import, and rarely needed

    kept = folder / f"{ARTIFACT}-{VERSION}-plugin.tar.gz"
    if not _is_it(kept):
        with tempfile.TemporaryDirectory(dir=folder) as own:
            component = MavenContext(repo_cache=Path(own)).project(GROUP, ARTIFACT)
            try:
                fetched = component.at_version(VERSION).artifact("plugin", "tar.gz").resolve()
            except (OSError, RuntimeError) as error:
                raise Trouble(
                    f"{GROUP}:{ARTIFACT}:{VERSION} could not be fetched: {error}",
                    "D1 needs the network once; the other measurements do not.",
                ) from error
            Path(fetched).replace(kept)
    if not _is_it(kept):
        kept.unlink()
        raise Trouble(
            f"{kept.name} is not the pinned file (SHA-256 differs); it was deleted.",
            "Try again; if it stays so, something between here and the repository changes it.",
        )
    return kept


def _is_it(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == SHA256
    except OSError:
        return False


def _unpack(archive: Path, folder: Path) -> None:
    """All or nothing: the folder takes its place by a rename."""
    own = Path(tempfile.mkdtemp(prefix=".unpack-", dir=folder.parent))
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(own, filter="data")
        own.rename(folder)
    finally:
        shutil.rmtree(own, ignore_errors=True)
