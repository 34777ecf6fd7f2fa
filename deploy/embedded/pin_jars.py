"""For maintainers: writes `deploy/kafka/jars.lock` anew.

    python -m deploy.embedded.pin_jars org.apache.kafka:kafka_2.13:4.3.1 …

Each coordinate is resolved on its own: together, the dependency management of one would change the
versions of another. The first that names an artifact decides its version.
"""

import hashlib
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from deploy.embedded.jars import LOCK, WORKERS, Jar

HEADER = """\
# The jars of the embedded Kafka: Maven coordinate, size in bytes, SHA-256.
# Made by: python -m deploy.embedded.pin_jars {roots}
"""


def resolve(roots: list[str], folder: Path) -> list[Jar]:
    """All jars the roots need at run time, fetched into `folder`."""
    from jgo.maven import MavenContext

    context = MavenContext(repo_cache=folder)
    found: dict[tuple[str, str], Any] = {}
    for root in roots:
        inputs, others = context.resolver.resolve([context.create_dependency(root)])
        for dependency in inputs + others:
            found.setdefault((dependency.groupId, dependency.artifactId), dependency)
    with ThreadPoolExecutor(WORKERS) as pool:
        return list(pool.map(_pin, found.values()))


def _pin(dependency: Any) -> Jar:
    data = Path(dependency.artifact.resolve()).read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    return Jar(dependency.groupId, dependency.artifactId, dependency.version, len(data), digest)


def main(roots: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        jars = resolve(roots, Path(folder))
    lines = [f"{jar.coordinate} {jar.size_bytes} {jar.sha256}\n" for jar in jars]
    LOCK.write_text(HEADER.format(roots=" ".join(roots)) + "".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
