"""`afterwrite up`: the whole system on one machine, from an empty folder to two curl lines.

lock the home → choose and fetch → services side by side → roles → migrations → API and writer
→ notifier and mail worker → until a signal comes → all stop, in the order of STOP_ORDER
"""

import asyncio
import errno
import shutil
import signal
from collections.abc import Mapping
from dataclasses import dataclass

from deploy.embedded import children, content, leftovers, ports
from deploy.embedded.children import Commands
from deploy.embedded.choose import choose, fetch, own
from deploy.embedded.home import Home
from deploy.embedded.kafka import Kafka
from deploy.embedded.local_mail import LocalMail
from deploy.embedded.process import Process
from deploy.embedded.progress import Download, row, say
from deploy.embedded.service import External, Service
from deploy.embedded.services import keys
from deploy.embedded.supervisor import Child, Supervisor
from deploy.errors import NEEDED_BYTES, Trouble, UsageTrouble
from schema.settings import LOOPBACK

# The notifier goes before what it watches: a stack that is stopped is no incident.
STOP_ORDER = [
    "notifier", "api", "writer", "mail-worker", "mailbox", "kafka", "redis", "postgres",
]  # fmt: skip
PASSED_ON = (
    "AFTERWRITE_CONTENT",
    "AFTERWRITE_ALERT_URLS",
    "AFTERWRITE_ALERT_SECRET",
    "AFTERWRITE_SMTP_URL",
    "AFTERWRITE_MAIL_FROM",
)
"""What commands in other terminals need, too, as the operator has set it."""
OWN_DISK = {"AFTERWRITE_DISK_SHED_PERCENT": "97", "AFTERWRITE_DISK_ALERT_PERCENT": "95"}
"""Of the embedded Kafka: it lives on the disk of the whole machine, which is usually fuller than a
broker's own should be."""
TOKEN_S = 24 * 3600
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Where:
    """Where the API listens, and the address by which this machine reaches it."""

    host: str
    port: int

    @property
    def url(self) -> str:
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)  # noqa: S104
        return f"http://{host}:{self.port}"


def run(home: Home, environ: Mapping[str, str], commands: Commands | None = None) -> None:
    """Runs the stack until a stop signal. Raises `Trouble`; then nothing is left running."""
    home.open()
    try:
        where = _where(home, environ)
        say(f"Afterwrite keeps its state in {home.path}")
        _check_room(home)
        left = leftovers.end(home)
        if left:
            say(f"  stopped what an earlier start had left: {', '.join(left)}")
        services = choose(home, environ)
        for service in services:
            say(row(service.name, service.describe()))
        fetch(services, Download("kafka"))
        asyncio.run(_Stack(home, environ, commands or Commands(), where, services).run())
    finally:
        home.close()


def _where(home: Home, environ: Mapping[str, str]) -> Where:
    host = environ.get("AFTERWRITE_HOST") or "127.0.0.1"
    text = environ.get("PORT") or environ.get("AFTERWRITE_PORT") or "8000"
    if not text.isdigit() or int(text) > 65_535:
        raise UsageTrouble(f"PORT is {text!r}.", "Set it to a port number, or 0 for a free one.")
    if text == "0":
        return Where(host, home.port("api"))
    error = ports.refusal(int(text), host)
    if error is not None:
        raise _no_such_door(host, int(text), error)
    return Where(host, int(text))


def _no_such_door(host: str, port: int, error: OSError) -> Trouble:
    if error.errno == errno.EADDRINUSE:
        return Trouble(
            f"Port {port} of {host} is taken by another program.",
            f"Choose another one: `PORT={port + 1} make up` (0 takes any free one).",
        )
    if error.errno == errno.EACCES:
        return Trouble(
            f"This user may not listen on port {port}.",
            "Choose one from 1024 up: `PORT=8000 make up`.",
        )
    return UsageTrouble(
        f"AFTERWRITE_HOST is {host!r}: {error.strerror or error}.",
        "Set it to an address of this machine, or leave it unset for 127.0.0.1.",
    )


def _check_room(home: Home) -> None:
    free = shutil.disk_usage(home.path).free
    if free < NEEDED_BYTES:
        raise Trouble(
            f"The disk that holds {home.path} has {free // 1_000_000} MB left; "
            f"the stack needs {NEEDED_BYTES // 1_000_000}.",
            "Free some space there, or set AFTERWRITE_HOME to a folder on another disk.",
        )


class _Stack:
    def __init__(
        self,
        home: Home,
        environ: Mapping[str, str],
        commands: Commands,
        where: Where,
        services: list[Service | External],
    ) -> None:
        self._home = home
        self._environ = environ
        self._commands = commands
        self._where = where
        self._services = services
        self._supervisor = Supervisor(home, lambda text: say(f"  {text}"))
        self._asked_to_stop = asyncio.Event()
        self._mail = LocalMail.of(home, environ)
        self._settings = self._make_settings()

    def _make_settings(self) -> dict[str, str]:
        """What is chosen here; a key the operator has set himself is kept."""
        settings = {
            name: self._environ.get(name) or value for name, value in keys(self._home).items()
        }
        if self._environ.get("AFTERWRITE_JWKS"):
            del settings["AFTERWRITE_JWT_SECRET"]  # tokens come from an issuer of the operator's
        for service in self._services:
            settings |= service.environment()
        if any(service.name == "kafka" for service in own(self._services)):
            settings |= {n: self._environ.get(n) or value for n, value in OWN_DISK.items()}
        settings["AFTERWRITE_URL"] = self._where.url
        settings["AFTERWRITE_HOST"] = self._where.host
        settings["AFTERWRITE_PORT"] = str(self._where.port)
        settings["AFTERWRITE_PUBLIC_URL"] = (
            self._environ.get("AFTERWRITE_PUBLIC_URL") or self._where.url
        )
        settings |= {name: self._environ[name] for name in PASSED_ON if self._environ.get(name)}
        return settings | self._mail.settings(self._environ)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._on_signal)
        starting = asyncio.create_task(self._start())
        waiting = asyncio.create_task(self._asked_to_stop.wait())
        try:
            await asyncio.wait({starting, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                await starting
                await waiting
        finally:
            starting.cancel()
            waiting.cancel()
            await asyncio.gather(starting, waiting, return_exceptions=True)
            await self._supervisor.stop(STOP_ORDER)
            (self._home.path / "environment.json").unlink(missing_ok=True)
        say("Stopped. The data stay where they are.")

    def _on_signal(self) -> None:
        if self._asked_to_stop.is_set():
            say("Killing what still runs.")
            self._supervisor.kill()
            return
        say("\nStopping; once more to kill.")
        if any(isinstance(service, Kafka) and service.training for service in self._services):
            say("  kafka writes a cache that makes later starts faster: some seconds, once")
        self._asked_to_stop.set()

    async def _start(self) -> None:
        ours = own(self._services)
        await self._supervisor.start([_child(service) for service in ours])
        await asyncio.gather(*(self._supervisor.in_thread(service.finish) for service in ours))
        self._home.write("environment.json", self._settings, mode=0o600)
        await self._migrate()
        served = children.api_and_writer(
            self._commands,
            self._environ,
            self._settings,
            self._where.url,
            self._home.port("writer"),
            self._site(),
        )
        await self._supervisor.start(served + self._mail.children())
        # After what it watches: a stack that is starting is no incident.
        await self._supervisor.start(self._telling())
        welcome(self._home, self._where.url, self._token(), self._site(), self._environ)
        say(self._mail.describe())
        say("Ctrl-C stops everything.")

    def _telling(self) -> list[Child]:
        """The notifier, and a mail worker where there is a server to send by."""
        told = (self._commands, self._environ, self._settings)
        telling = [children.notifier(*told, self._home.port("notifier"))]
        if self._mail.can_be_sent:
            telling.append(children.mail_worker(*told, self._home.port("mail-worker")))
        return telling

    def _site(self) -> dict[str, str]:
        """The forum, with a sign-in for trying out where nobody else can come; the operator may
        want it otherwise, and pages of topics and posts need the forum's content types."""
        site = "forum" if not self._environ.get("AFTERWRITE_CONTENT") else "none"
        site = self._environ.get("AFTERWRITE_SITE") or site
        alone = self._where.host in LOOPBACK and "AFTERWRITE_JWT_SECRET" in self._settings
        demo = "true" if site == "forum" and alone else "false"
        return {
            "AFTERWRITE_SITE": site,
            "AFTERWRITE_DEMO_SIGN_IN": self._environ.get("AFTERWRITE_DEMO_SIGN_IN") or demo,
            "AFTERWRITE_ADMIN": self._environ.get("AFTERWRITE_ADMIN") or demo,
        }

    def _token(self) -> str:
        """A bearer token for trying things out, as a user called ada."""
        from frontend_api.authentication import mint_token  # slow: only once all is running

        secret = self._settings.get("AFTERWRITE_JWT_SECRET")
        audience = self._environ.get("AFTERWRITE_JWT_AUDIENCE")
        if secret is None:
            return "A-TOKEN-OF-YOUR-ISSUER"
        return mint_token(secret, "ada", (), TOKEN_S, audience)

    async def _migrate(self) -> None:
        process = Process("migrate", self._home.logs / "migrate.log")
        process.start(children.migrate(self._commands, self._environ, self._settings))
        popen = process.popen
        assert popen is not None
        try:
            code = await self._supervisor.in_thread(popen.wait)
        except asyncio.CancelledError:
            process.kill()
            raise
        if code:
            raise Trouble(
                f"The migrations failed ({process.exit_text}):\n{process.log_tail()}",
                f"The whole log is {process.log}.",
            )
        content.record(self._home, self._environ)
        say("  database and topics are up to date")


def _child(service: Service) -> Child:
    return Child(service.name, service.launch, service.ready, service.port, service.prepare)


def welcome(
    home: Home, url: str, token: str, site: Mapping[str, str], environ: Mapping[str, str]
) -> None:
    """Says where to go, with two lines to try."""
    header = f"-H 'Authorization: Bearer {token}'"
    body = """-H 'Content-Type: application/json' -d '{"title": "Hello", "body": "First post"}'"""
    if site["AFTERWRITE_SITE"] == "forum":
        demo = site["AFTERWRITE_DEMO_SIGN_IN"] == "true"
        say(f"\nThe forum, in a browser: {url}/" + ("   (sign in under any name)" if demo else ""))
    if site["AFTERWRITE_ADMIN"] == "true":
        say(f"The page for operators:   {url}/admin")
    say(f"\nReady: {url}   (API description: {url}/openapi.json; logs: {home.logs})\n")
    if content.is_default(environ):
        say("Post something, then read it back:\n")
        say(f"curl -s -X POST {url}/v1/topics {header} {body}\n")
        say(f"curl -s {url}/v1/topics {header}\n")
    else:
        say("The paths of your content types are in the API description. To ask as ada:\n")
        say(f"curl -s {header} {url}/v1/…\n")
