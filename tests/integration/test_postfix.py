"""The mail workers with Debian's Postfix, which delivers to mailboxes on this machine."""

import email
import email.policy
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path

import pytest

from schema.mail_templates import Rejected, queue
from tests.installation import Installation, eventually, free_port
from tests.mailing import Mailing, mail_to
from tests.smtp_sink import smtp_sink, throw_away_certificate
from writer.mail.message import HEADERS

pytestmark = [pytest.mark.integration, pytest.mark.once]

POSTFIX = Path("/usr/sbin/postfix")
ADDED = {"Return-Path", "X-Original-To", "Delivered-To", "Received"}
"""Headers that Postfix puts before ours."""
_MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
rewrite unix - - n - - trivial-rewrite
qmgr unix n - n 300 1 qmgr
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
proxymap unix - - n - - proxymap
virtual unix - n n - - virtual
tlsmgr unix - - n 1000? 1 tlsmgr
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"""


class Postfix:
    """One instance of its own: own configuration, queue, port and mailboxes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.mailboxes = folder / "mailboxes"
        _, self.trusted = throw_away_certificate(folder)
        self._etc = folder / "etc"

    def start(self) -> None:
        for part in ("etc", "queue", "data", "mailboxes"):
            (self.folder / part).mkdir()
        self.folder.chmod(0o755)  # Postfix gives rights away early: its user must get in
        shutil.chown(self.folder / "data", "postfix")
        shutil.chown(self.mailboxes, "nobody")
        settings = {
            "compatibility_level": "3.6",
            "queue_directory": self.folder / "queue",
            "data_directory": self.folder / "data",
            "mail_owner": "postfix",
            "setgid_group": "postdrop",
            "maillog_file": self.folder / "mail.log",
            "maillog_file_prefixes": self.folder,
            "myhostname": "postfix.test",
            "inet_interfaces": "127.0.0.1",
            "inet_protocols": "ipv4",
            "mynetworks": "127.0.0.0/8",
            "mydestination": "",
            "alias_maps": "",
            "alias_database": "",
            "virtual_mailbox_domains": "example.com",
            "virtual_mailbox_base": self.mailboxes,
            "virtual_mailbox_maps": "inline:{ {ada@example.com=ada/} {late@example.com=late/} }",
            "virtual_uid_maps": "static:65534",
            "virtual_gid_maps": "static:65534",
            "smtpd_relay_restrictions": "permit_mynetworks, reject",
            "smtpd_recipient_restrictions": (
                "check_recipient_access inline:{ {full@example.com=452 4.2.2 mailbox full} }"
            ),
            "smtpd_tls_security_level": "may",
            "smtpd_tls_cert_file": self.trusted,
            "smtpd_tls_key_file": self.folder / "key.pem",
        }
        main = "".join(f"{name} = {value}\n" for name, value in settings.items())
        (self._etc / "main.cf").write_text(main)
        (self._etc / "master.cf").write_text(_MASTER.format(port=self.port))
        self._run("start")

    def stop(self) -> None:
        self._run("stop")

    def _run(self, verb: str) -> None:
        subprocess.run(
            [POSTFIX, "-c", self._etc, verb], check=True, capture_output=True, timeout=30
        )

    def mails(self, mailbox: str) -> list[EmailMessage]:
        """What was delivered."""
        return [
            email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
            for path in (self.mailboxes / mailbox / "new").glob("*")
        ]


@pytest.fixture
def postfix() -> Iterator[Postfix]:
    if not POSTFIX.exists() or os.geteuid() != 0:
        pytest.skip("SKIPPED FOR REAL: no Postfix, or not root; .ci/second-versions installs it")
    with tempfile.TemporaryDirectory(prefix="afterwrite-postfix-") as folder:
        made = Postfix(Path(folder))
        made.start()
        yield made
        made.stop()


async def test_postfix_delivers_what_was_queued(
    installation: Installation, postfix: Postfix
) -> None:
    text = "Ein Ömlaut\n.\n..two dots\nFrom here\n\nBcc: evil@example.com\n" + "x" * 3000
    rejected = queue(
        Rejected(
            name="Adä\r\nBcc: evil@example.com",
            reason="Weil.",
            code="forbidden",
            text=text,
            link="https://forum.example/resend",
        ),
        mail_id=mail_to("x@y").mail_id,
        to="ada@example.com",
        locale="de",
        created_at=datetime.now(UTC),
    )
    nobody, full, ten = mail_to("nobody@example.com"), mail_to("full@example.com"), range(10)
    async with smtp_sink() as unused:
        mailing = Mailing(installation, unused)
        # Another address than its mailbox: `late` shows that what follows a refusal is delivered.
        await mailing.queue([nobody, full, rejected], partition=0)
        await mailing.queue([mail_to("late@example.com") for _ in ten], partition=0)
        url = f"smtp://localhost:{postfix.port}?starttls=required&ca={postfix.trusted}"
        worker = mailing.worker(smtp_url=url)
        await eventually(
            lambda: len(postfix.mails("late")) == 10 and len(postfix.mails("ada")) == 1,
            30,
            "Postfix to deliver",
        )
        await worker.running.logged("mail_put_off", mail_id=str(full.mail_id))
        assert [(dead.code, dead.mail) for dead in await mailing.dead()] == [("refused", nobody)]
        assert (await mailing.dead())[0].detail.startswith("550 5.1.1")
    (mail,) = postfix.mails("ada")
    assert [name for name in mail.keys() if name not in ADDED] == list(HEADERS)  # noqa: SIM118
    assert "with ESMTPS" in str(mail["Received"])
    assert mail["Message-ID"] == f"<{rejected.mail_id}@example.org>"
    for kind in ("plain", "html"):
        body = mail.get_body((kind,))
        assert body is not None
        payload = body.get_payload(decode=True)
        assert isinstance(payload, bytes)
        assert text in payload.decode().replace("\r\n", "\n")
    assert len({str(one["Message-ID"]) for one in postfix.mails("late")}) == 10
