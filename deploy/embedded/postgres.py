"""PostgreSQL as our child: TCP on 127.0.0.1 only, SCRAM passwords, checksums, three roles.

As root it runs in a user namespace of its own, or failing that as an unprivileged user, because
PostgreSQL refuses to run as root.
"""

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Literal

import asyncpg

from deploy.embedded import launch as launcher
from deploy.embedded import probes
from deploy.embedded.files import write_atomically
from deploy.embedded.home import Home
from deploy.embedded.process import Launch
from deploy.embedded.sources import Binary
from deploy.errors import Trouble

ROLES_SQL = Path(__file__).parent.parent / "roles.sql"
ROLES = ("afterwrite_owner", "afterwrite_writer", "afterwrite_frontend")
DATABASE = "afterwrite"
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "jit": "off",  # our statements are short: compiling one takes longer than running it
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %q%u@%d ",
}


class Postgres:
    """The embedded PostgreSQL of one home."""

    name: Literal["postgres"] = "postgres"

    def __init__(self, home: Home, binary: Binary) -> None:
        self.home = home
        self.binary = binary
        self.port = home.port(self.name)
        self.folder = home.folder(self.name)
        self.data = self.folder / "data"
        self.run_as = how_to_leave_root()

    def describe(self) -> str:
        suffix = {"": "", "userns": ", in a user namespace"}.get(
            self.run_as, f", as user id {self.run_as}"
        )
        return self.binary.describe() + suffix

    def prepare(self) -> None:
        """Runs `initdb` if there are no data yet."""
        major = f"PostgreSQL {self.binary.version[0]}"
        if (self.data / "PG_VERSION").exists():
            made_by = (self.data / "PG_VERSION").read_text(encoding="ascii").strip()
            self._check_major(made_by)
        else:
            self._initdb()
        self.home.stamp(self.name, major, self._other_version(major))
        self._forget_stale_pid()

    def _check_major(self, made_by: str) -> None:
        if made_by != str(self.binary.version[0]):
            raise Trouble(
                f"{self.data} was made by PostgreSQL {made_by}, and this is "
                f"{self.binary.product} {self.binary.version[0]}.",
                self._other_version(f"PostgreSQL {made_by}"),
            )

    def _other_version(self, version: str) -> str:
        return (
            f"Use {version} (AFTERWRITE_POSTGRES_SOURCE=wheel or system chooses), move the data "
            "with pg_dump, or set AFTERWRITE_HOME to a new folder."
        )

    def _initdb(self) -> None:
        unfinished = self.folder / "data.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        password_file = self.folder / "password"
        write_atomically(password_file, self.home.secret("postgres") + "\n", mode=0o600)
        self._hand_over()
        options = ["--username=postgres", f"--pwfile={password_file}", "--auth=scram-sha-256"]
        options += ["--data-checksums", "--encoding=UTF8", *self._locale(), "--no-instructions"]
        initdb = str(self.binary.path.parent / "initdb")
        log = self.home.logs / "initdb.log"
        command = Launch(
            (initdb, *options, "-D", str(unfinished)),
            self._env(),
            run_as=self.run_as,
            needs=(initdb, str(self.folder)),
        ).command()
        with log.open("wb") as output:
            code = subprocess.run(command, stdout=output, stderr=output, check=False).returncode
        password_file.unlink()
        if code:
            raise self._initdb_trouble(code, log)
        unfinished.rename(self.data)

    def _locale(self) -> list[str]:
        if self.binary.version[0] >= 17:
            return ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
        return ["--locale=C.UTF-8"] if sys.platform == "linux" else ["--no-locale"]

    def _initdb_trouble(self, code: int, log: Path) -> Trouble:
        text = log.read_text(encoding="utf-8", errors="replace").strip()
        if code == launcher.OUT_OF_REACH:
            return Trouble(
                f"PostgreSQL refuses to run as root, and user id {self.run_as} cannot reach "
                f"{text.splitlines()[-1]}.",
                "Run as an ordinary user, or let others pass its parent folders (chmod o+x), or "
                "set AFTERWRITE_DATABASE_URL and its two companions to an existing server.",
            )
        if "No space left" in text:
            return Trouble(
                f"The disk that holds {self.folder} is full.",
                "Free some space there, or set AFTERWRITE_HOME to a folder on another disk.",
            )
        last = text.splitlines()[-1] if text else f"exit code {code}"
        return Trouble(f"initdb failed: {last}", f"See {log}.")

    def _hand_over(self) -> None:
        """Gives the folder to the user PostgreSQL will run as, where that is another one."""
        if self.run_as.isdigit():
            for path in [self.folder, *self.folder.rglob("*")]:
                os.chown(path, int(self.run_as), int(self.run_as))

    def _forget_stale_pid(self) -> None:
        """Removes a `postmaster.pid` whose process is not a postgres.

        After a crash its number may belong to a stranger (in a restarted container it usually
        does), and PostgreSQL would refuse to start for as long as that one lives.
        """
        file = self.data / "postmaster.pid"
        try:
            pid = int(file.read_text(encoding="ascii").splitlines()[0])
            program = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
        except (OSError, ValueError, IndexError):
            return
        if program != "postgres":
            file.unlink()

    def _env(self) -> dict[str, str]:
        """Ours without PG… variables, which would change what the server does."""
        return {key: value for key, value in os.environ.items() if not key.startswith("PG")}

    def launch(self) -> Launch:
        settings = [f"{key}={value}" for key, value in SETTINGS.items()]
        settings.append(f"port={self.port}")
        program = str(self.binary.path)
        options = [word for setting in settings for word in ("-c", setting)]
        return Launch(
            (program, "-D", str(self.data), *options),
            self._env(),
            stop_signal=signal.SIGINT,  # "fast": ends sessions, then writes a checkpoint
            stop_s=30,
            run_as=self.run_as,
            needs=(program, str(self.data)),
        )

    def ready(self) -> bool:
        return probes.postgres(self.port)

    def finish(self) -> None:
        """Creates roles and database. Blocks; not for a thread that runs an event loop."""
        asyncio.run(create_roles(self.url("postgres", "postgres"), self._passwords()))

    def _passwords(self) -> dict[str, str]:
        return {role: self.home.secret(role) for role in ROLES}

    def url(self, role: str, database: str = DATABASE) -> str:
        return f"postgresql://{role}:{self.home.secret(role)}@127.0.0.1:{self.port}/{database}"

    def environment(self) -> dict[str, str]:
        return {
            "AFTERWRITE_DATABASE_URL": self.url("afterwrite_owner"),
            "AFTERWRITE_WRITER_DATABASE_URL": self.url("afterwrite_writer"),
            "AFTERWRITE_FRONTEND_DATABASE_URL": self.url("afterwrite_frontend"),
            "AFTERWRITE_ADMIN_DATABASE_URL": self.url("postgres"),
        }


def sql_steps(text: str) -> dict[str, str]:
    """The blocks of `roles.sql` by the names in their `-- step: NAME` lines."""
    parts = text.split("\n-- step: ")[1:]
    return {name.strip(): body for name, _, body in (part.partition("\n") for part in parts)}


async def create_roles(admin_url: str, passwords: dict[str, str]) -> None:
    """Makes the roles with these passwords, and the database; leaves what is there."""
    steps = sql_steps(ROLES_SQL.read_text(encoding="utf-8"))
    connection = await asyncpg.connect(admin_url, ssl=False, timeout=10)
    try:
        await connection.execute(steps["roles"])
        for role, password in passwords.items():
            # ALTER ROLE takes no parameters; both are our own letters and digits.
            assert password.isalnum()
            await connection.execute(f"ALTER ROLE {role} PASSWORD '{password}'")
        known = "SELECT 1 FROM pg_database WHERE datname = $1"
        if not await connection.fetchval(known, DATABASE):
            await connection.execute(steps["database"])
        await connection.execute(steps["access"])
    finally:
        await connection.close()


def how_to_leave_root() -> str:
    """How PostgreSQL's processes are to run: '' (as we do), `userns`, or an unprivileged user id."""
    if os.geteuid() != 0:
        return ""
    trial = Launch((shutil.which("true") or "/bin/true",), run_as="userns").command()
    if subprocess.run(trial, capture_output=True, check=False).returncode == 0:
        return "userns"
    return str(pwd.getpwnam("nobody").pw_uid)
