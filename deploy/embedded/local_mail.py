"""Mail of an embedded stack: by the server that the operator names, else into a folder of the home."""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.embedded import children
from deploy.embedded.home import Home
from deploy.embedded.supervisor import Child

FOLDER = "mail"
ADMINISTRATOR = "administrator@localhost"


@dataclass(frozen=True)
class LocalMail:
    """`folder` and `port` are the mailbox's; None where there is none."""

    named: bool
    folder: Path | None = None
    port: int | None = None

    @classmethod
    def of(cls, home: Home, environ: Mapping[str, str]) -> "LocalMail":
        """A mailbox, unless a server is named. It needs aiosmtpd, of the extra `embedded`."""
        if any(environ.get(f"AFTERWRITE_SMTP_URL{end}") for end in ("", "_FILE")):
            return cls(named=True)
        if importlib.util.find_spec("aiosmtpd") is None:
            return cls(named=False)
        return cls(named=False, folder=home.folder(FOLDER), port=home.port("mailbox"))

    @property
    def can_be_sent(self) -> bool:
        return self.named or self.folder is not None

    def settings(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Where mail goes. Alerts go into the mailbox, too, as long as no channel is named."""
        if self.folder is None:
            return {}
        added = {"AFTERWRITE_SMTP_URL": f"smtp://127.0.0.1:{self.port}"}
        if not any(environ.get(f"AFTERWRITE_ALERT_URLS{end}") for end in ("", "_FILE")):
            added["AFTERWRITE_ALERT_URLS"] = f"mailto://127.0.0.1:{self.port}?to={ADMINISTRATOR}"
        return added

    def children(self) -> list[Child]:
        if self.folder is None or self.port is None:
            return []
        return [children.mailbox(self.folder, self.port)]

    def describe(self) -> str:
        if self.named:
            return "Mail goes out by the server of AFTERWRITE_SMTP_URL.\n"
        if self.folder is None:
            return "Mail is not sent: set AFTERWRITE_SMTP_URL.\n"
        return f"Mail is not sent but kept, alerts too: {self.folder}\n"
