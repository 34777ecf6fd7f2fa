"""Valkey or Redis as our child: append-only file, never evicting, password, 127.0.0.1 only."""

from typing import Literal

from deploy.embedded import probes
from deploy.embedded.files import write_atomically
from deploy.embedded.home import Home
from deploy.embedded.process import Launch
from deploy.embedded.sources import Binary


class Redis:
    """The embedded Valkey or Redis of one home."""

    name: Literal["redis"] = "redis"

    def __init__(self, home: Home, binary: Binary) -> None:
        self.home = home
        self.binary = binary
        self.port = home.port(self.name)
        self.folder = home.folder(self.name)
        self.password = home.secret(self.name)

    def describe(self) -> str:
        return self.binary.describe()

    def prepare(self) -> None:
        """Writes the settings file. The password is there and not on the command line, which every
        user of the machine can read."""
        made_by = f"{self.binary.product} {self.binary.version[0]}"
        self.home.stamp(
            self.name,
            made_by,
            f"Remove {self.folder} (what it held is rebuilt from Kafka) and its line in "
            f"{self.home.path / 'version.json'}, or set AFTERWRITE_HOME to a new folder.",
        )
        settings = {
            "bind": "127.0.0.1",
            "port": self.port,
            "dir": f'"{self.folder}"',
            "requirepass": self.password,
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": '""',  # the append-only file is enough
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
            "logfile": '""',
        }
        text = "".join(f"{name} {value}\n" for name, value in settings.items())
        write_atomically(self.folder / "redis.conf", text, mode=0o600)

    def launch(self) -> Launch:
        return Launch((str(self.binary.path), str(self.folder / "redis.conf")))

    def ready(self) -> bool:
        return probes.redis(self.port, self.password)

    def finish(self) -> None:
        """Nothing to be done."""

    def environment(self) -> dict[str, str]:
        return {"AFTERWRITE_REDIS_URL": f"redis://:{self.password}@127.0.0.1:{self.port}/0"}
