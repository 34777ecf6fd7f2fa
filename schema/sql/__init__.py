"""SQL that belongs to the contract: the migrations, in order, each with its checksum."""

import hashlib
import re
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

_NAME = re.compile(r"^(\d{4})_[a-z0-9_]+\.sql$")
_UP: Final = "-- migrate:up"
_DOWN: Final = "-- migrate:down"


@dataclass(frozen=True)
class Migration:
    """One file in dbmate's format; `checksum` is the SHA-256 of its text."""

    version: int
    name: str
    up: str
    checksum: str


MACHINERY: Final = "schema.sql.machinery"


def migrations(package: str) -> list[Migration]:
    """All migrations of a package, lowest version first. Raises ValueError on a malformed one."""
    found = []
    for entry in files(package).iterdir():
        match = _NAME.match(entry.name)
        if match is None:
            continue
        text = entry.read_text(encoding="utf-8")
        _, marker, rest = text.partition(_UP)
        if not marker:
            raise ValueError(f"{entry.name} has no line {_UP!r}")
        up = rest.partition(_DOWN)[0].strip()
        checksum = hashlib.sha256(text.encode()).hexdigest()
        found.append(Migration(int(match[1]), entry.name, up, checksum))
    return sorted(found, key=lambda migration: migration.version)
