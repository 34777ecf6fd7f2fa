"""What the mail workers' SMTP adapter makes of a real server's answers, and of none."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.installation import free_port
from tests.smtp_sink import DROP, HANG, SmtpSink, smtp_sink, throw_away_certificate
from writer.mail.smtp import Ambiguous, PutOff, Refused, ServerAway, Smtp
from writer.mail.smtp_url import BadSmtpUrl, SmtpServer

pytestmark = pytest.mark.unit

MESSAGE = b"Subject: x\r\n\r\n.one dot\r\n"
TO = "ada@example.com"


async def _nothing() -> None:
    return


@contextlib.asynccontextmanager
async def _client(url: str, timeout_s: float = 5.0) -> AsyncIterator[Smtp]:
    smtp = Smtp(SmtpServer.parse(url), timeout_s)
    try:
        yield smtp
    finally:
        await smtp.close()


async def _send(smtp: Smtp, to: str = TO) -> None:
    await smtp.send("forum@example.org", to, MESSAGE, _nothing)


async def test_one_connection_is_used_again() -> None:
    async with smtp_sink() as sink, _client(sink.url) as smtp:
        for number in range(5):
            await _send(smtp, f"u{number}@example.com")
        assert sink.recipients == [f"u{number}@example.com" for number in range(5)]
        assert [one.content for one in sink.received] == [MESSAGE] * 5
        assert sink.connections == 1


async def test_after_a_refusal_the_connection_is_used_again() -> None:
    async with smtp_sink() as sink, _client(sink.url) as smtp:
        sink.at_rcpt[TO] = ["550 5.1.1 no such\x1b[31m user", "450 busy"]
        sink.at_data[TO] = ["554 not this", "451 later"]
        with pytest.raises(Refused) as refused:
            await _send(smtp)
        assert (refused.value.code, refused.value.reply) == (550, "5.1.1 no such [31m user")
        for error in (PutOff, Refused, PutOff):
            with pytest.raises(error):
                await _send(smtp)
        await _send(smtp)
        assert sink.recipients == [TO]
        assert sink.connections == 1


async def test_broken_off_before_and_after_the_message() -> None:
    async with smtp_sink() as sink, _client(sink.url) as smtp:
        sink.at_rcpt[TO] = [DROP]
        with pytest.raises(PutOff) as broken:
            await _send(smtp)
        assert broken.value.server
        assert sink.received == []
        sink.at_data[TO] = [DROP]
        with pytest.raises(Ambiguous):
            await _send(smtp)
        assert sink.recipients == [TO], "the server has it, and nobody could know"
        await _send(smtp)


async def test_no_step_waits_longer_than_it_may() -> None:
    async with smtp_sink() as sink, _client(sink.url, 0.2) as smtp:
        began = time.monotonic()
        sink.at_mail = [HANG]
        with pytest.raises(ServerAway):
            await _send(smtp)
        sink.at_rcpt[TO] = [HANG]
        with pytest.raises(PutOff):
            await _send(smtp)
        sink.at_data[TO] = [HANG]
        with pytest.raises(Ambiguous):
            await _send(smtp)
        assert time.monotonic() - began < 5


async def test_a_server_that_says_nothing_at_all() -> None:
    gone = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        gone.set()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, _client(f"smtp://127.0.0.1:{port}", 0.2) as smtp:
        with pytest.raises(ServerAway):
            await _send(smtp)
        await gone.wait()


async def test_nobody_there_and_a_sender_that_is_not_wanted() -> None:
    async with _client(f"smtp://127.0.0.1:{free_port()}") as smtp:
        with pytest.raises(ServerAway):
            await _send(smtp)
    async with smtp_sink() as sink, _client(sink.url) as smtp:
        sink.at_mail = ["530 who are you", "421 going down"]
        for code in (530, 421):
            with pytest.raises(ServerAway) as away:
                await _send(smtp)
            assert away.value.code == code
        await _send(smtp)


async def test_a_connection_that_went_away_meanwhile_is_made_anew() -> None:
    async with smtp_sink() as sink, _client(sink.url) as smtp:
        await _send(smtp)
        await sink.stop()
        await sink.start()
        await _send(smtp)
        assert sink.recipients == [TO, TO]
        assert sink.connections == 2


async def test_what_the_claim_raises_breaks_the_mail_off() -> None:
    async def another() -> None:
        raise RuntimeError("not ours")

    async with smtp_sink() as sink, _client(sink.url) as smtp:
        with pytest.raises(RuntimeError):
            await smtp.send("forum@example.org", TO, MESSAGE, another)
        assert sink.received == []
        await _send(smtp)
        assert sink.recipients == [TO]


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[tuple[SmtpSink, Path]]:
    """A server with STARTTLS and a password, and the certificate to trust."""
    context, trusted = throw_away_certificate(tmp_path)
    async with smtp_sink({"forum": "se:cr@t"}, context) as sink:
        yield sink, trusted


async def test_starttls_and_password(guarded: tuple[SmtpSink, Path]) -> None:
    sink, trusted = guarded
    at = f"localhost:{sink.port}?ca={trusted}"
    async with _client(f"smtp://forum:se%3Acr%40t@{at}") as smtp:
        await _send(smtp)
    assert [(one.encrypted, one.user) for one in sink.received] == [(True, "forum")]
    for wrong in (
        f"smtp://forum:wrong@{at}",
        f"smtp://{at}",
        f"smtp://forum:se%3Acr%40t@localhost:{sink.port}",  # nobody vouches for its certificate
    ):
        async with _client(wrong) as smtp:
            with pytest.raises(ServerAway):
                await _send(smtp)
    assert len(sink.received) == 1


async def test_encryption_is_taken_as_it_comes_or_required(tmp_path: Path) -> None:
    context, trusted = throw_away_certificate(tmp_path)
    async with smtp_sink(tls=context) as sink:
        for query in ("", f"?starttls=required&ca={trusted}", "?starttls=never"):
            async with _client(f"{sink.url}{query}") as smtp:
                await _send(smtp)
        assert [one.encrypted for one in sink.received] == [True, True, False]
        async with _client(f"{sink.url}?starttls=required") as smtp:
            with pytest.raises(ServerAway):
                await _send(smtp)
    async with smtp_sink() as sink:
        for url in (f"{sink.url}?starttls=required", f"smtp://u:p@localhost:{sink.port}"):
            async with _client(url) as smtp:
                with pytest.raises(ServerAway, match="STARTTLS"):
                    await _send(smtp)
        assert sink.received == []


@pytest.mark.parametrize(
    "url",
    [
        "http://x", "smtp://", "smtp:///x", "smtp://h:0x1", "smtp://h:99999", "smtp://h?starttls=yes",
        "smtp://h?verify=no", "smtp://u:hunter2@mail.example/?starttls=never", "smtp://h/path", "",
    ],
)  # fmt: skip
def test_urls_that_cannot_be_used(url: str) -> None:
    with pytest.raises(BadSmtpUrl) as told:
        SmtpServer.parse(url)
    assert "hunter2" not in str(told.value)


def test_urls_and_what_they_mean() -> None:
    plain = SmtpServer.parse("smtp://mail.example")
    assert (plain.port, plain.tls, plain.must_encrypt) == (25, False, False)
    tls = SmtpServer.parse("smtps://u:p%40%2F@mail.example:4650")
    assert (tls.port, tls.tls, tls.user, tls.password) == (4650, True, "u", "p@/")
    assert "p@/" not in repr(tls)
    assert SmtpServer.parse("smtp://u:p@mail.example").must_encrypt
    assert not SmtpServer.parse("smtp://u:p@127.0.0.1?starttls=never").must_encrypt
