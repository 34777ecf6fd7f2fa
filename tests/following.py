"""Pages of documentation that tests follow to the letter.

What a `sh` block prints must be the block that follows it. Ids and times are made equal first: an id by
the place where it is met first, so that who is who has to be right.
"""

import os
import re
import select
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|\b[0-9a-f]{32}\b")
_TIME = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d:\d\d(?:\.\d{3,6}Z?)?)?")


@dataclass(frozen=True)
class Block:
    """A fenced block: what stands behind the fence, its text, and the line it begins in."""

    language: str
    options: dict[str, str]
    text: str
    line: int


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in re.finditer(r"^```(\w+)((?: \w+=\S+)*)\n(.*?)^```$", text, re.M | re.S):
        options = dict(option.split("=", 1) for option in found[2].split())
        yield Block(found[1], options, found[3], text.count("\n", 0, found.start()) + 1)


class Same:
    """Makes two runs comparable: the n-th id is the n-th id, a time a time, the home the home."""

    def __init__(self, home: Path | None = None) -> None:
        self._home = home
        self._ids: dict[str, str] = {}

    def __call__(self, text: str) -> str:
        if self._home is not None:
            text = text.replace(str(self._home), "~")
        text = _ID.sub(lambda m: self._ids.setdefault(m[0], f"id-{len(self._ids)}"), text)
        return _TIME.sub("TIME", text).strip()


class Shell:
    """One shell that is typed into, as a user's second terminal."""

    def __init__(self, home: Path, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            ["bash", "--norc"],
            cwd=home,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def type(self, text: str, timeout_s: float = 60) -> str:
        """What these lines print, errors included."""
        assert self._process.stdin is not None
        end = f"--- end {time.monotonic_ns()} ---"
        self._process.stdin.write(f"{text}\nprintf '%s\\n' '{end}'\n".encode())
        self._process.stdin.flush()
        return until(self._process.stdout, f"{end}\n", timeout_s)

    def value(self, name: str) -> str:
        return self.type(f'printf %s "${name}"')

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)
        assert self._process.stdout is not None
        self._process.stdout.close()


def until(stream: IO[bytes] | None, end: str, timeout_s: float) -> str:
    assert stream is not None
    deadline, output = time.monotonic() + timeout_s, b""
    while end.encode() not in output:
        readable, _, _ = select.select([stream], [], [], max(deadline - time.monotonic(), 0))
        part = os.read(stream.fileno(), 65_536) if readable else b""
        assert part, f"{end!r} never came: {output.decode(errors='replace')}"
        output += part
    return output.decode().partition(end)[0]
