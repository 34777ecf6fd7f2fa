"""What a load has done so far, on disk: which row of the dump became which rows of the site.

JSON lines, only ever appended to; the last line about a row counts. The first line names the dump.
Losing the file loses nothing: the Idempotency-Keys find what was sent. It saves the asking.
"""

import asyncio
import fcntl
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from deploy.errors import Trouble

_FORMAT = 1


@dataclass(frozen=True)
class Entry:
    """One accepted row. `topic` and `post` are ids of the site; `reason` is why it was rejected."""

    row: str
    author: str
    command: str
    topic: str | None = None
    post: str | None = None
    state: Literal["accepted", "saved", "rejected"] = "accepted"
    reason: str | None = None


class LoadState:
    """The state file of one dump, held by one process at a time. Use it as a context manager."""

    def __init__(self, path: Path, digest: str) -> None:
        """Opens the file, or makes it. Raises `Trouble` when it is in use, not readable as a state
        file, or of another dump. A last line that was cut off by a crash is dropped."""
        self.path = path
        self.entries: dict[str, Entry] = {}
        self._lines: list[str] = []
        self._writing = asyncio.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = _open_locked(path)
        try:
            self._read(digest)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "LoadState":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    async def put(self, entry: Entry) -> None:
        """Remembers an entry; it is on disk when this returns. Entries that come while the disk is
        busy share the next write."""
        self.entries[entry.row] = entry
        self._lines.append(json.dumps({k: v for k, v in asdict(entry).items() if v is not None}))
        async with self._writing:
            if not self._lines:
                return  # whoever wrote before us wrote ours, too
            lines, self._lines = self._lines, []
            await asyncio.to_thread(self._write, lines)

    def _write(self, lines: list[str]) -> None:
        self._file.write("".join(f"{line}\n" for line in lines).encode())
        self._file.flush()
        os.fsync(self._file.fileno())

    def _read(self, digest: str) -> None:
        kept = 0
        for number, line in enumerate(self._file):
            if not line.endswith(b"\n"):
                break
            try:
                data = json.loads(line)
                if number == 0:
                    self._check_header(data, digest)
                else:
                    entry = Entry(**data)
                    self.entries[entry.row] = entry
            except (ValueError, TypeError) as error:
                raise Trouble(
                    f"{self.path} is not a state file: line {number + 1} cannot be read.",
                    "Name another with --state, or remove it: nothing will be doubled.",
                ) from error
            kept += len(line)
        self._file.truncate(kept)
        self._file.seek(kept)
        if kept == 0:
            self._write([json.dumps({"format": _FORMAT, "dump": digest})])

    def _check_header(self, data: dict[str, object], digest: str) -> None:
        if data.get("format") != _FORMAT or "dump" not in data:
            raise ValueError("not a header")
        if data["dump"] != digest:
            raise Trouble(
                f"{self.path} is the state of another dump.", "Name another file with --state."
            )


def _open_locked(path: Path) -> BinaryIO:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise Trouble(
            f"Another load is using {path}.", "Wait for it, or name another file with --state."
        ) from None
    return os.fdopen(descriptor, "r+b")
