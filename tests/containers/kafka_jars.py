"""Fetches the embedded broker's jars where they are not cached, and prints their paths, one a line.

For `.ci/engine`, so that the broker in the container is the one that users of the embedded stack run.
"""

import sys
import tempfile
from pathlib import Path

from deploy.embedded.jars import Jars, cache_folder, kafka_version, read_lock


def main() -> None:
    """Raises `Trouble`, which says what to do, when a jar is missing and cannot be fetched."""
    pinned = read_lock()
    cache = cache_folder(Path(tempfile.gettempdir()) / "afterwrite-cache")
    jars = Jars(cache / f"kafka-{kafka_version(pinned)}", pinned)
    jars.ensure()
    sys.stdout.writelines(f"{path}\n" for path in jars.class_path())


if __name__ == "__main__":
    main()
