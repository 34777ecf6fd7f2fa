"""docs/how-to/your-own-content.md, followed to the letter in an empty home folder.

Blocks with `file=` are written, `sh` blocks are typed into one shell (those with `terminal=1` into a
terminal of their own), and what a block prints must be the block that follows it. Ids and times are
made equal first: an id by the place where it is met first, so that who is who has to be right.
"""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.following import Block, Same, Shell, blocks, until
from tests.installation import free_port

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.timeout(300),
    pytest.mark.skipif(sys.platform != "linux", reason="the page's shell lines are tried on Linux"),
]
ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "your-own-content.md"
READY = "Ctrl-C stops everything."


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A user's home with nothing but a checkout that `make up` has run in."""
    checkout = tmp_path / "afterwrite"
    checkout.mkdir()
    (checkout / ".venv").symlink_to(Path(sys.executable).parents[1])
    return tmp_path


@pytest.fixture
def environment(home: Path) -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("AFTERWRITE_", "PYTHON"))}
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")  # Kafka's jars
    return {**clean, "HOME": str(home), "XDG_CACHE_HOME": cache, "PORT": str(free_port())}


def _written(folder: Path, block: Block) -> None:
    (folder / block.options["file"]).write_text(block.text, encoding="utf-8")


def test_a_newcomer_follows_the_page(home: Path, environment: dict[str, str]) -> None:
    shell = Shell(home, environment)
    stack: subprocess.Popen[bytes] | None = None
    shown, printed = Same(), Same(home)
    output = ""
    checked = 0
    try:
        for block in blocks(PAGE):
            where = f"{PAGE.name}, line {block.line}"
            if "file" in block.options:
                _written(home / "club", block)
            elif block.options.get("terminal") == "1":
                assert stack is None
                stack = subprocess.Popen(
                    [
                        "bash",
                        "--norc",
                        "-c",
                        block.text.strip().replace("afterwrite", "exec afterwrite"),
                    ],
                    cwd=home / "club",
                    env={**environment, "PATH": shell.value("PATH")},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                )
                until(stack.stdout, READY, 180)
            elif block.language == "sh":
                output = shell.type(block.text)
            else:
                assert printed(output) == shown(block.text), where
                checked += 1
    finally:
        shell.close()
        if stack is not None:
            stack.send_signal(signal.SIGINT)
            stack.communicate(timeout=60)
    assert checked >= 6, "the page shows what its commands print"
    assert stack is not None
    assert stack.returncode == 0


def test_the_page_is_read_in_ten_minutes() -> None:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 250
    assert {"python", "sql", "sh", "json", "text"} == {block.language for block in blocks(PAGE)}
    assert sum(line.startswith("```") for line in lines) == 2 * len(list(blocks(PAGE)))


@pytest.mark.parametrize("folder", ["frontend_api", "writer"])
def test_neither_process_knows_the_content_types_that_ship_beside_the_forum(folder: str) -> None:
    for path in sorted((ROOT / folder).rglob("*.py")):
        text = path.read_text(encoding="utf-8").lower()
        for word in ("coursework", "handin", "enrolment"):
            assert word not in re.findall(r"[a-z_]+", text), f"{path} knows of {word}"
