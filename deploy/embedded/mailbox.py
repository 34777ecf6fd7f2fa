"""A mailbox for trying out: an SMTP server that sends nothing on and keeps each mail as a file.

    python -m deploy.embedded.mailbox PORT FOLDER

Listens on 127.0.0.1 only. The files are named by time, end in .eml, and open in any mail program;
the oldest go when there are more than `KEPT`.
"""

import asyncio
import itertools
import signal
import sys
import time
from pathlib import Path
from typing import Any, Final

from aiosmtpd.smtp import SMTP, Envelope

KEPT: Final = 1000
MOST_BYTES: Final = 5_000_000


class Folder:
    """The handler: one file a mail, whole or not at all."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._numbers = itertools.count(1)

    async def handle_DATA(self, _server: SMTP, _session: Any, envelope: Envelope) -> str:
        content = envelope.content
        if not isinstance(content, bytes):
            return "554 5.6.0 no content"
        for_whom = ", ".join(str(address) for address in envelope.rcpt_tos)
        # Who it was for is not always in its headers.
        head = f"X-Envelope-To: {for_whom}\r\n".encode("ascii", "replace")
        name = f"{time.strftime('%Y-%m-%dT%H.%M.%S')}-{next(self._numbers):04}"
        try:
            draft = self._path / f".{name}"
            draft.write_bytes(head + content)
            draft.rename(self._path / f"{name}.eml")
            self._forget()
        except OSError as error:
            return f"452 4.3.1 cannot be kept: {error.strerror}"
        return "250 2.0.0 kept"

    def _forget(self) -> None:
        for old in sorted(self._path.glob("*.eml"))[:-KEPT]:
            old.unlink(missing_ok=True)


async def run(port: int, path: Path) -> None:
    """Until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    folder = Folder(path)
    server = await loop.create_server(
        lambda: SMTP(folder, hostname="localhost", data_size_limit=MOST_BYTES, loop=loop),
        "127.0.0.1",
        port,
    )
    await stopping.wait()
    server.close()


if __name__ == "__main__":
    asyncio.run(run(int(sys.argv[1]), Path(sys.argv[2])))
