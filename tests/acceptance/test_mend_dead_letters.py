"""docs/how-to/mend-dead-letters.md, followed to the letter on a fresh installation."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from tests.following import Same, Shell, blocks
from tests.installation import Installation

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(180)]
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "mend-dead-letters.md"


async def test_an_operator_follows_the_page(installation: Installation, tmp_path: Path) -> None:
    installation.start("writer")
    api = await installation.start("api").ready()
    environment = os.environ | installation.environment() | {"AFTERWRITE_URL": api.url}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    shell = Shell(tmp_path, environment)
    shown, printed = Same(), Same()
    output, checked = "", 0
    try:
        for block in blocks(PAGE):
            if block.language == "sh":
                output = await asyncio.to_thread(shell.type, block.text)
                continue
            assert printed(output) == shown(block.text), f"{PAGE.name}, line {block.line}"
            checked += 1
    finally:
        shell.close()
    assert checked >= 7, "the page shows what its commands print"
