"""SQL that belongs to the contract: the migrations, in order, each with its checksum."""

import hashlib
import re
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

_NAME = re.compile(r"^(\d{4})_[a-z0-9_]+\.sql$")
_UP: Final = "-- migrate:up"
_DOWN: Final = "-- migrate:down"


class MalformedMigration(ValueError):
    """A file or package of migrations is not as it should be; the message says what to do."""


@dataclass(frozen=True)
class Migration:
    """One file in dbmate's format; `checksum` is the SHA-256 of its text."""

    version: int
    name: str
    up: str
    checksum: str


MACHINERY: Final = "schema.sql.machinery"


def migrations(package: str) -> list[Migration]:
    """All migrations of a package, lowest version first. Raises `MalformedMigration`.

    The package is a folder; it needs nothing but the files, called `0001_what_it_does.sql`.
    """
    found = []
    for entry in _entries(package):
        match = _NAME.match(entry.name)
        if match is None:
            continue
        text = entry.read_text(encoding="utf-8")
        _, marker, rest = text.partition(_UP)
        if not marker:
            raise MalformedMigration(f"{package} {entry.name} has no line {_UP!r}")
        up = rest.partition(_DOWN)[0].strip()
        checksum = hashlib.sha256(text.encode()).hexdigest()
        found.append(Migration(int(match[1]), entry.name, up, checksum))
    if not found:
        raise MalformedMigration(f"{package} holds no file with a name like 0001_tables.sql")
    return sorted(found, key=lambda migration: migration.version)


def _entries(package: str) -> list[Traversable]:
    try:
        return list(files(package).iterdir())
    except (ModuleNotFoundError, FileNotFoundError, TypeError) as error:
        raise MalformedMigration(
            f"there is no package {package!r} with migrations: MIGRATIONS names a folder beside the "
            "module, with dots instead of slashes"
        ) from error
