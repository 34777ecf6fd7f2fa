"""Are Python, the packages and the servers' programs the ones that are tested together?"""

import asyncio
import platform
import sys
from collections.abc import Callable, Mapping
from importlib import metadata

from packaging.requirements import Requirement

from deploy.doctor import Finding
from deploy.embedded import sources
from deploy.errors import Trouble

LEAST_PYTHON = (3, 11)


async def check(settings: Mapping[str, str]) -> list[Finding]:
    findings = [_python(), *_packages()]
    for name, find in {
        "postgres": sources.postgres, "redis": sources.redis, "kafka": sources.java
    }.items():  # fmt: skip
        if not any(settings.get(key) for key in _URL_OF[name]):
            findings.append(await asyncio.to_thread(_program, name, find, settings))
    return findings


_URL_OF = {
    "postgres": sources.POSTGRES_URLS,
    "redis": ("AFTERWRITE_REDIS_URL",),
    "kafka": ("AFTERWRITE_KAFKA_BOOTSTRAP",),
}


def _python() -> Finding:
    here = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    if sys.version_info < LEAST_PYTHON:
        return Finding("python", "bad", here, "Use Python 3.11 or later.")
    return Finding("python", "ok", here)


def _packages() -> list[Finding]:
    """Each dependency in a version that we declare. Extras count when they are installed."""
    wrong = []
    for text in metadata.requires("afterwrite") or []:
        wanted = Requirement(text)
        optional = wanted.marker is not None and "extra" in str(wanted.marker)
        if wanted.marker is not None and not optional and not wanted.marker.evaluate():
            continue
        try:
            installed = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            if not optional:
                wrong.append(f"{wanted.name} is missing")
            continue
        if installed not in wanted.specifier:
            wrong.append(f"{wanted.name} is {installed}, wanted {wanted.specifier}")
    version = metadata.version("afterwrite")
    if wrong:
        return [Finding("packages", "bad", "; ".join(wrong), "Run `uv sync --locked`.")]
    return [Finding("packages", "ok", f"afterwrite {version}, all dependencies as declared")]


def _program(
    name: str, find: Callable[[Mapping[str, str]], sources.Binary], settings: Mapping[str, str]
) -> Finding:
    try:
        return Finding(f"{name} program", "ok", find(settings).describe())
    except Trouble as trouble:
        return Finding(f"{name} program", "warning", trouble.what, trouble.todo)
